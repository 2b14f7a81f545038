"""Exceptions of users' own files, as one message that names the file and the line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pseudolabel.errors import MethodError, UserError

if TYPE_CHECKING:
    from pseudolabel.methods.registry import Method


@contextmanager
def plugin_errors(method: "Method", *through: type[Exception]) -> Iterator[None]:
    """Turn an exception in a method of a user's file into a MethodError that names the line; it stays the cause.

    Unchanged are errors of the package's own methods, of a notebook's, messages for users, and a device's memory that
    is used up, for which stages have a hint.

    Args:
        method: the entry.
        through: further exceptions that stay as they are.

    Raises:
        MethodError: in place of the exception.
    """
    try:
        yield
    except Exception as error:  # the user's program may raise anything
        if not method.file or isinstance(error, (UserError, *through)) or _is_out_of_memory(error):
            raise
        place = f"'{method.file}'{line_in(method.file, error)}"
        raise MethodError(f"method '{method.name}' of {place}: {describe(error)}") from error


def describe(error: Exception) -> str:
    """An exception as Python shows it in its last line."""
    return "".join(traceback.format_exception_only(error)).strip().rpartition("\n")[2]


def line_in(file: str, error: Exception) -> str:
    """The last line of a file that an exception came through, as `, line 3`; empty if it came through none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _is_out_of_memory(error: Exception) -> bool:
    from torch import OutOfMemoryError  # late, since torch takes a second

    return isinstance(error, OutOfMemoryError)
