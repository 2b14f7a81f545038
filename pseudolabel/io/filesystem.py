"""Paths and URLs: what fsspec reaches, and local files under whatever name they have."""

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
    """The file system of a path and the path's name in it.

    fsspec takes `::` anywhere for the joint of two URLs; here it is one only in a URL of a file system that lies in
    another, such as `zip://a.jpg::s3://bucket/b.zip`, and a local path may hold it.

    Args:
        path: a local path, in which a leading `~` is the home folder, or any fsspec URL.

    Raises:
        PathError: if the URL's protocol is unknown or its package is not installed.
    """
    protocol = _protocol(path)
    if protocol is None:
        return fsspec.filesystem("file"), make_path_posix(path).rstrip("/") or "/"
    try:
        if "::" not in path or _lies_in_another(protocol):
            return url_to_fs(path)
        fs, _ = url_to_fs(path.partition("::")[0])
        return fs, fs._strip_protocol(path)
    except (ValueError, ImportError) as error:
        raise PathError(f"'{path}': {error}") from error


def _protocol(path: str) -> str | None:
    """A URL's protocol, None for a local path."""
    start = _PROTOCOL.match(path)
    if start is None or (start[2] == "::" and (start[1] not in available_protocols() or os.path.lexists(path))):
        return None
    return start[1]


def _lies_in_another(protocol: str) -> bool:
    classes = get_filesystem_class(protocol).__mro__
    parameters = {name for kind in classes for name in inspect.signature(kind.__init__).parameters}
    return bool(parameters & {"fo", "target_protocol"})
