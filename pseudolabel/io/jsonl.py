"""Read JSON Lines (one object per line) from a file or from all files of a folder."""

from collections.abc import Iterator, Sequence
from typing import Any

from pseudolabel.errors import SourceError
from pseudolabel.io.files import files_in, is_file, read_text
from pseudolabel.io.json_text import decode_json


def read_lines(source: str, fields: Sequence[str], what: str, hint: str) -> Iterator[list[Any]]:
    """The fields of every line of a JSONL file, or of all `*.jsonl` files of a folder in the order of their names.

    Args:
        source: local path or fsspec URL.
        fields: names of the fields that the object in every line must have.
        what: the kind of record, such as `caption`, for messages.
        hint: what the user should do if the file is missing or invalid; the end of the message.

    Raises:
        SourceError: if there is no such file, or a line lacks a field; the message names file and line.
    """
    for origin, record in read_records(source, what, hint):
        missing = [field for field in fields if field not in record]
        if missing:
            raise SourceError(f"{origin}: not a {what}, field '{missing[0]}' is missing; {hint}")
        yield [record[field] for field in fields]


def read_records(source: str, what: str, hint: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of every line, preceded by its file and line number; arguments and errors as in `read_lines`."""
    for path in _files(source, what, hint):
        yield from read_file(path, what, hint)


def read_file(path: str, what: str, hint: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """`read_records` of one file."""
    # Not splitlines(): it splits at U+2028, which JSON strings may contain.
    for number, line in enumerate(read_text(path, hint).split("\n"), 1):
        if not line.strip():
            continue
        origin = f"{path} line {number}"
        try:
            record = decode_json(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{origin}: not a {what}, invalid JSON ({error}); {hint}") from error
        if not isinstance(record, dict):
            raise SourceError(f"{origin}: not a {what}, but a JSON {type(record).__name__}; {hint}")
        yield origin, record


def _files(source: str, what: str, hint: str) -> list[str]:
    if is_file(source):
        return [source]
    if files := files_in(source, ".jsonl"):
        return files
    raise SourceError(f"no {what}s in '{source}'; {hint}")
