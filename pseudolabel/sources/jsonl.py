"""JSON lines: what the commands write about images, read back from a file or a folder of files."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import SourceError
from pseudolabel.sources.files import is_file, is_folder, read_text


def read_lines(source: str, fields: Sequence[str], what: str, mend: str) -> Iterator[list[Any]]:
    """The fields of every line of a JSONL file, or of all `*.jsonl` files of a folder in the order of their names.

    Args:
        source: local path or fsspec URL.
        fields: names that every line's object has to hold.
        what: what a line is, such as `caption`, for messages.
        mend: what the user should do where there is no such file, the end of the message.

    Raises:
        SourceError: if there is no such file, or a line lacks a field; the message names file and line.
    """
    for path in _files(source, what, mend):
        # Not splitlines(): JSON strings may hold U+2028, which it takes for the end of a line.
        for number, line in enumerate(read_text(path, mend).split("\n"), 1):
            if line.strip():
                try:
                    found = json.loads(line)
                    yield [found[field] for field in fields]
                except (ValueError, KeyError, TypeError) as error:
                    raise SourceError(f"{path}, line {number}: not a {what} ({error!r}); {mend}") from error


def _files(source: str, what: str, mend: str) -> list[str]:
    if is_file(source):
        return [source]
    if is_folder(source):
        fs, name = open_filesystem(source)
        files = sorted(fs.unstrip_protocol(path) for path in fs.glob(f"{name.rstrip('/')}/*.jsonl"))
        if files:
            return files
    raise SourceError(f"no {what}s in '{source}'; {mend}")
