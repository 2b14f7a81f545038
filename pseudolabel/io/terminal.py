"""Text of others, such as names of files, made fit to be printed."""

import unicodedata


def escaped(text: str, keep: str = "") -> str:
    """The text with every character escaped, as in JSON, that could move the cursor, hide or reorder text, or fail.

    Those are control and format characters, line separators, and halves of characters, which stand for the bytes of
    names that are no text.

    Args:
        text: anything.
        keep: characters that stay as they are, such as line ends.
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
