"""Files wherever fsspec reaches: local paths and URLs are read alike."""

from collections.abc import Sequence
from typing import NamedTuple

from pseudolabel.errors import PathError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import BadSample, SourceError


class Location(NamedTuple):
    """Where bytes lie: a local path or any fsspec URL, and the byte range where only a part of it is meant."""

    path: str
    offset: int | None = None
    length: int | None = None


def read_bytes(location: Location) -> bytes:
    """Read a file, or its byte range.

    Raises:
        BadSample: `missing` where there is no such file, `truncated` where it ends inside the range, `unreadable` where
            the system refuses it.
    """
    path, offset, length = location
    try:
        fs, name = open_filesystem(path)
        if offset is None or length is None:
            return fs.cat_file(name)
        data = fs.cat_file(name, start=offset, end=offset + length)
    except FileNotFoundError as error:
        raise BadSample("missing", f"no file '{path}'") from error
    except (OSError, PathError) as error:
        raise BadSample("unreadable", f"'{path}' cannot be read: {error}") from error
    if len(data) < length:
        raise BadSample("truncated", f"'{path}' ends before byte {offset + length}")
    return data


def read_text(path: str, mend: str) -> str:
    """Read a UTF-8 text file that a source cannot do without; a byte order mark is dropped.

    Args:
        path: local path or fsspec URL.
        mend: what the user should do where the file is missing, the end of the message.

    Raises:
        SourceError: if the file is missing or not UTF-8 text.
    """
    try:
        return read_bytes(Location(path)).decode("utf-8-sig")
    except BadSample as error:
        raise SourceError(f"{error}; {mend}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"'{path}' is not UTF-8 text ({error})") from error


def is_folder(path: str) -> bool:
    """Whether a local path or URL is a folder that exists."""
    fs, name = open_filesystem(path)
    return bool(fs.isdir(name))


def find_folder(root: str, names: Sequence[str], mend: str) -> str:
    """The first of some folders below a root that is there, since data sets are unpacked in more ways than one.

    Raises:
        SourceError: if none is; `mend` says what the user should do.
    """
    for name in names:
        if is_folder(join(root, name)):
            return join(root, name)
    raise SourceError(f"no folder '{join(root, names[0])}'; {mend}")


def is_file(path: str) -> bool:
    """Whether a local path or URL is a file that exists."""
    fs, name = open_filesystem(path)
    return bool(fs.isfile(name))


def join(folder: str, name: str) -> str:
    """`name` inside `folder`; an absolute path or a URL stays as it is."""
    if name.startswith("/") or "://" in name or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if folder.strip("/") else f"/{name}"
