"""File names in other encodings, as text that can be printed and stored."""


def printable(name: str) -> str:
    r"""The name with each byte that is not UTF-8 written as `\xe9`; other names are unchanged.

    Python represents such bytes by surrogates, which cannot be written to a terminal or a JSON file.

    Args:
        name: a file name or path as Python's file functions return it, or a message that contains one.
    """
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can contain
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_printable(name: str) -> bool:
    """Whether the name is valid UTF-8."""
    return name.isascii() or printable(name) == name
