"""JSON: people's files, in which nothing may be lost, and ours, the same bytes for the same content."""

import hashlib
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


def encode_json(value: Any) -> bytes:
    """The same bytes for the same content."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # in JSON an escape: a file name that is no UTF-8 ends no run


def digest(value: Any) -> str:
    """sha256 of a JSON-ready value, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
