"""The fsspec file system of a path or URL; local files may have any name."""

import inspect
import os
import re

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import make_path_posix
from fsspec.registry import available_protocols, get_filesystem_class

from pseudolabel.errors import PathError

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)(://|::)")


def open_filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path, and the path inside it.

    fsspec splits every path at `::`. Here `::` separates two URLs only if the first names a file system inside another
    one, such as `zip://a.jpg::s3://bucket/b.zip`. A local path may contain `::`.

    Args:
        path: a local path, where a leading `~` means the home folder, or any fsspec URL.

    Raises:
        PathError: if the URL's protocol is unknown or its package is not installed.
    """
    protocol = _protocol(path)
    if protocol is None:
        return fsspec.filesystem("file"), make_path_posix(path).rstrip("/") or "/"
    try:
        if "::" not in path or _is_nested(protocol):
            return url_to_fs(path)
        fs, _ = url_to_fs(path.partition("::")[0])
        return fs, fs._strip_protocol(path)
    except (ValueError, ImportError) as error:
        raise PathError(f"'{path}': {error}") from error


def _protocol(path: str) -> str | None:
    """The protocol of a URL; None for a local path."""
    start = _PROTOCOL.match(path)
    if start is None or (start[2] == "::" and (start[1] not in available_protocols() or os.path.lexists(path))):
        return None
    return start[1]


def _is_nested(protocol: str) -> bool:
    classes = get_filesystem_class(protocol).__mro__
    parameters = {name for kind in classes for name in inspect.signature(kind.__init__).parameters}
    return bool(parameters & {"fo", "target_protocol"})
