"""The members of a tar: their names, their positions, and the bytes that identify labels and formats."""

import posixpath
import tarfile
from collections import Counter
from typing import BinaryIO, NamedTuple

from pseudolabel.errors import SourceError
from pseudolabel.io.files import Location
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.image_formats import HEAD, by_suffix
from pseudolabel.io.names import printable
from pseudolabel.io.tar import compression, read_headers

LABEL_SUFFIXES = (".json", ".cls", ".txt")  # in the order in which they are believed
_LFS_POINTER = b"version https://git-lfs"


class Member(NamedTuple):
    """A regular member of a tar.

    Attributes:
        name: as the tar has it; bytes that are no UTF-8 are surrogates.
        location: where its bytes are.
        content: all of it where the suffix is one of labels; its head where the suffix is of no format; else empty.
        sparse: whether the tar leaves out its zeros, so that its bytes cannot be read by position.
    """

    name: str
    location: Location
    content: bytes
    sparse: bool = False

    @property
    def suffix(self) -> str:
        """The last suffix, in small letters, with its dot; empty where there is none."""
        name = self.name.rpartition("/")[2]
        dot = name.rfind(".")
        return name[dot:].lower() if dot >= 0 else ""


def read_members(path: str) -> tuple[list[Member], Counter[str]]:
    """List the members of a tar by its headers. Links are followed inside the tar.

    Returns:
        The members in their order, and how many are left out by reason.

    Raises:
        SourceError: if the tar is missing, damaged, cut off, compressed, or several joined with cat.
    """
    fs, name = open_filesystem(path)
    members: list[Member] = []
    links: list[tuple[str, str]] = []
    left_out: Counter[str] = Counter()
    try:
        with fs.open(name, "rb") as file:
            for info in read_headers(file):
                if info.isreg():
                    members.append(_member(path, file, info))
                elif info.islnk() or info.issym():
                    folder = posixpath.dirname(info.name) if info.issym() else ""
                    links.append((info.name, posixpath.normpath(posixpath.join(folder, info.linkname))))
                elif not info.isdir():
                    left_out["pipe or device in a shard"] += 1
    except FileNotFoundError as error:
        raise SourceError(f"no shard '{printable(path)}'; check `source.path`") from error
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"shard '{printable(path)}' is not a plain tar: {error}{_explain(path)}") from error
    left_out["link to what the shard does not hold"] += _follow(links, members)
    return members, +left_out


def _member(path: str, file: BinaryIO, info: tarfile.TarInfo) -> Member:
    member = Member(info.name, Location(path, info.offset_data, info.size), b"", info.issparse())
    if member.suffix in LABEL_SUFFIXES:
        return member._replace(content=_read(file, info, info.size))
    if member.suffix and by_suffix(member.suffix) is None:
        return member._replace(content=_read(file, info, HEAD))
    return member


def _read(file: BinaryIO, info: tarfile.TarInfo, size: int) -> bytes:
    file.seek(info.offset_data)
    return file.read(min(size, info.size))


def _follow(links: list[tuple[str, str]], members: list[Member]) -> int:
    """Add the links as members of their own; returns how many have no target."""
    known = {posixpath.normpath(member.name): member for member in members}
    while links:
        waiting = []
        for name, target in links:
            if target in known:
                known[posixpath.normpath(name)] = known[target]._replace(name=name)
                members.append(known[posixpath.normpath(name)])
            else:
                waiting.append((name, target))
        if len(waiting) == len(links):
            return len(waiting)
        links = waiting
    return 0


def _explain(path: str) -> str:
    """What a file that is no tar is, as far as its first bytes show, and the fix."""
    fs, name = open_filesystem(path)
    try:
        head = fs.cat_file(name, start=0, end=HEAD)
    except OSError:
        return ""
    if known := compression(head):
        return (
            f"; it is compressed with {known[0]}, so that single images cannot be read; unpack it to a plain tar with "
            f"{known[1]}"
        )
    if head.startswith(_LFS_POINTER):
        return "; it is a pointer of Git LFS; fetch the file itself with git lfs pull"
    return ""
