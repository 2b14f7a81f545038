"""File names that may hold bytes of another encoding, as text that can be printed and stored."""


def printable(name: str) -> str:
    r"""The name with bytes that are no UTF-8 written as `\xe9`; any other name stays as it is.

    Python keeps such bytes as surrogates, which neither a terminal nor a JSON file takes.

    Args:
        name: a file name or path as Python's file functions give it, or a message that holds one.
    """
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as JSON can hold it
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_printable(name: str) -> bool:
    """Whether the name is text in UTF-8."""
    return name.isascii() or printable(name) == name
