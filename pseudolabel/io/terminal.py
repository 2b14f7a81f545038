"""Make text from outside, such as file names, safe to print."""

import unicodedata


def escaped(text: str, keep: str = "") -> str:
    """Escape, as in JSON, every character that could move the cursor, hide or reorder text, or fail to print.

    These are control and format characters, line separators, and surrogates, which represent bytes of file names that
    are not valid text.

    Args:
        text: any string.
        keep: characters that are not escaped, such as line ends.
    """
    return "".join(c if c in keep or not _is_odd(c) else _escape(c) for c in text)


def _is_odd(character: str) -> bool:
    return not character.isprintable() and unicodedata.category(character) != "Zs"


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    if ord(character) <= 0xFFFF:
        return f"\\u{ord(character):04x}"
    data = character.encode("utf-16-be")
    return f"\\u{data[:2].hex()}\\u{data[2:].hex()}"
