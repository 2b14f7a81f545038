"""JSON: a strict reader for user files, and a writer that gives the same bytes for the same content."""

import hashlib
import json
from collections import Counter
from typing import Any


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of an object; a repeated field is an error (Python's parser would keep the last one silently)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"field '{repeated}' is repeated in one object; keep one of them")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)


def decode_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is not JSON, or repeats a field in an object.
        RecursionError: if it is nested too deeply.
    """
    return _DECODER.decode(text)


def encode_json(value: Any) -> bytes:
    """The value as indented JSON with sorted fields: the same bytes for the same content."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # escapes surrogates, which file names that are not UTF-8 contain


def digest(value: Any) -> str:
    """Hexadecimal sha256 of a JSON-serializable value; equal content gives equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
