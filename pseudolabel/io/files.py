"""Files wherever fsspec reaches: local paths and URLs are read alike."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from pseudolabel.errors import ParquetError, PathError, SampleError, SourceError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.names import printable
from pseudolabel.io.parquet import Cell, read_cell

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Location(NamedTuple):
    """Where bytes lie: a local path or any fsspec URL, and the byte range or Parquet cell of a part of it."""

    path: str
    offset: int | None = None
    length: int | None = None
    cell: Cell | None = None


def read_bytes(location: Location) -> bytes:
    """Read a file, or a part of it.

    Raises:
        SampleError: `missing` where there is no such file, `truncated` where it ends inside the range, `unreadable`
            where the system refuses it.
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
    except (OSError, ValueError, PathError, ParquetError) as error:  # ValueError: no file has a name of such characters
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
    """Read a text file that a source cannot do without: UTF-8, or UTF-16 with a byte order mark, which is dropped.

    Args:
        path: local path or fsspec URL.
        hint: what the user should do where the file is missing, the end of the message.

    Raises:
        SourceError: if the file is missing, or no such text.
    """
    try:
        data = read_bytes(Location(path))
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except SampleError as error:
        raise SourceError(f"{error}; {hint}") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"'{path}' is not UTF-8 text ({error}); save it as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8, "
            "with the name of its encoding"
        ) from error
    if "\0" in text:
        raise SourceError(f"'{path}' holds zero bytes, as no text does; save it as UTF-8")
    return text


def is_folder(path: str) -> bool:
    """Whether a local path or URL is a folder that exists."""
    fs, name = open_filesystem(path)
    return bool(fs.isdir(name))


def find_folder(root: str, names: Sequence[str], hint: str) -> str:
    """The first of some folders below a root that is there, since data sets are unpacked in more ways than one.

    Raises:
        SourceError: if none is; `hint` says what the user should do.
    """
    for name in names:
        if is_folder(join(root, name)):
            return join(root, name)
    raise SourceError(f"no folder '{join(root, names[0])}'; {hint}")


def is_file(path: str) -> bool:
    """Whether a local path or URL is a file that exists."""
    fs, name = open_filesystem(path)
    return bool(fs.isfile(name))


def files_in(folder: str, suffix: str) -> list[str]:
    """Paths of the visible files of a suffix directly in a folder, sorted; none where there is no such folder.

    A pattern would take brackets in the folder's own name for its own.
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
