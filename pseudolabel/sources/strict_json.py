"""JSON of people's files, in which nothing may be lost."""

import json
from collections import Counter
from typing import Any


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields, of which JSON's parser would keep the last of several alike."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"'{repeated}' comes twice in one object; keep one of them")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)


def decode_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is no JSON, or an object in it has a field twice.
        RecursionError: if it is nested too deeply.
    """
    return _DECODER.decode(text)
