"""The members of a tar: their names, their places, and the bytes that tell labels and formats."""

import posixpath
import tarfile
from collections import Counter
from typing import IO, NamedTuple

from pseudolabel.errors import SourceError
from pseudolabel.io.files import Location
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.image_formats import HEAD, by_suffix
from pseudolabel.io.names import printable

LABEL_SUFFIXES = (".json", ".cls", ".txt")  # in the order in which they are believed
_BLOCK = 512
_REST = 1 << 20
_COMPRESSIONS = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_LFS_POINTER = b"version https://git-lfs"


class Member(NamedTuple):
    """A regular member of a tar.

    Attributes:
        name: as the tar has it; bytes that are no UTF-8 are surrogates.
        location: where its bytes are.
        content: all of it where the suffix is one of labels; its head where the suffix tells no format; else empty.
        sparse: whether the tar leaves out its zeros, so that its bytes do not lie there as they are.
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
    """Read the headers of a tar, which must be whole: Python's tarfile takes a damaged header for the end.

    Links are followed inside the tar.

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
        with fs.open(name, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.isreg():
                    members.append(_member(path, tar, info))
                elif info.islnk() or info.issym():
                    folder = posixpath.dirname(info.name) if info.issym() else ""
                    links.append((info.name, posixpath.normpath(posixpath.join(folder, info.linkname))))
                elif not info.isdir():
                    left_out["pipe or device in a shard"] += 1
            file.seek(tar.offset)
            whole = file.read(_BLOCK) == bytes(_BLOCK)
            more = whole and _holds_more(file)
    except FileNotFoundError as error:
        raise SourceError(f"no shard '{printable(path)}'; check `source.path`") from error
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"shard '{printable(path)}' is not a plain tar ({error}){_explain(path)}") from error
    if not whole:
        raise SourceError(
            f"shard '{printable(path)}' is damaged or cut off at byte {tar.offset}; copy or write it again"
        )
    if more:
        raise SourceError(
            f"shard '{printable(path)}' goes on after its end at byte {tar.offset}, as tars joined with cat do; keep "
            "them as shards of their own, or join them with tar -Af"
        )
    left_out["link to what the shard does not hold"] += _follow(links, members)
    return members, +left_out


def _holds_more(file: IO[bytes]) -> bool:
    """Whether the rest of a tar after its end holds anything but zeros."""
    while rest := file.read(_REST):
        if rest.count(0) < len(rest):
            return True
    return False


def _member(path: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    member = Member(info.name, Location(path, info.offset_data, info.size), b"", info.issparse())
    if member.suffix in LABEL_SUFFIXES:
        return member._replace(content=_read(tar.extractfile(info), info.size))
    if member.suffix and by_suffix(member.suffix) is None:
        return member._replace(content=_read(tar.extractfile(info), HEAD))
    return member


def _read(file: IO[bytes] | None, size: int) -> bytes:
    return file.read(size) if file is not None else b""


def _follow(links: list[tuple[str, str]], members: list[Member]) -> int:
    """Add the links as members of their own; returns how many lead nowhere."""
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
    """What a file that is no tar is, as far as its first bytes tell, and what to do."""
    fs, name = open_filesystem(path)
    try:
        head = fs.cat_file(name, start=0, end=HEAD)
    except OSError:
        return ""
    for magic, (kind, command) in _COMPRESSIONS.items():
        if head.startswith(magic):
            return (
                f": it is compressed with {kind}, where no image can be sought by its place; unpack it to a plain tar "
                f"with {command}"
            )
    if head.startswith(_LFS_POINTER):
        return ": it is a pointer of Git LFS; fetch the file itself with git lfs pull"
    return "; copy or write it again"
