"""Read files by local path or by any URL that fsspec supports."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from pseudolabel.errors import ParquetError, PathError, SampleError, SourceError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.names import printable
from pseudolabel.io.parquet import Cell, read_cell

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Location(NamedTuple):
    """Where to read bytes: a local path or fsspec URL, optionally with a byte range or a Parquet cell inside it."""

    path: str
    offset: int | None = None
    length: int | None = None
    cell: Cell | None = None


def read_bytes(location: Location) -> bytes:
    """Read a file, a byte range of it, or a Parquet cell.

    Raises:
        SampleError: `missing` if the file does not exist, `truncated` if it ends inside the range, `unreadable` if
            reading fails.
    """
    path, offset, length, cell = location
    try:
        if cell is not None:
            return _read_cell(path, cell)
        fs, name = open_filesystem(path)
        if offset is None or length is None:
            return fs.cat_file(name)
        data = fs.cat_file(name, start=offset, end=offset + length)
    except FileNotFoundError as error:
        raise SampleError("missing", f"no file '{path}'") from error
    except (OSError, ValueError, PathError, ParquetError) as error:  # ValueError: invalid characters in the name
        raise SampleError(
            "unreadable", printable(f"'{path}' cannot be read: {error}".replace("\0", "\\x00"))
        ) from error
    if len(data) < length:
        raise SampleError("truncated", f"'{path}' ends before byte {offset + length}")
    return data


def _read_cell(path: str, cell: Cell) -> bytes:
    data = read_cell(path, cell)
    if not isinstance(data, bytes):
        raise SampleError("missing", f"'{path}' row {cell.row + 1} holds no bytes in column '{cell.column}'")
    return data


def read_text(path: str, hint: str) -> str:
    """Read a text file that a source requires: UTF-8, or UTF-16 with a byte order mark. The mark is dropped.

    Args:
        path: local path or fsspec URL.
        hint: what the user should do if the file cannot be read; the end of the message.

    Raises:
        SourceError: if the file cannot be read or is not such text.
    """
    try:
        data = read_bytes(Location(path))
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except SampleError as error:
        raise SourceError(f"{error}; {hint}") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"'{path}' is not UTF-8 text ({error}); save it as UTF-8, or convert it with "
            "`iconv -f ENCODING -t UTF-8`, where ENCODING is for example WINDOWS-1252"
        ) from error
    if "\0" in text:
        raise SourceError(f"'{path}' contains zero bytes, so it is not text; save it as UTF-8")
    return text


def is_folder(path: str) -> bool:
    """Whether a local path or URL is an existing folder."""
    fs, name = open_filesystem(path)
    return bool(fs.isdir(name))


def find_folder(root: str, names: Sequence[str], hint: str) -> str:
    """The first existing folder among some names below a root, as data sets are unpacked in different ways.

    Raises:
        SourceError: if none exists; the message ends with `hint`, which says what the user should do.
    """
    for name in names:
        if is_folder(join(root, name)):
            return join(root, name)
    raise SourceError(f"no folder '{join(root, names[0])}'; {hint}")


def is_file(path: str) -> bool:
    """Whether a local path or URL is an existing file."""
    fs, name = open_filesystem(path)
    return bool(fs.isfile(name))


def files_in(folder: str, suffix: str) -> list[str]:
    """Sorted paths of the files with a suffix directly in a folder, without hidden ones; empty if there is no folder.

    This lists the folder instead of using a glob pattern, because the folder's name may contain brackets.
    """
    fs, name = open_filesystem(folder)
    if not fs.isdir(name):
        return []
    found = (path.rstrip("/").rpartition("/")[2] for path in fs.ls(name, detail=False))
    return [join(folder, file) for file in sorted(found) if file.endswith(suffix) and not file.startswith(".")]


def join(folder: str, name: str) -> str:
    """`name` inside `folder`; an absolute path or a URL stays as it is."""
    if name.startswith("/") or "://" in name or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if folder.strip("/") else f"/{name}"
