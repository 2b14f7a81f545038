"""WebDataset tar files: written with bytes that depend only on their content, and read by their headers."""

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, NamedTuple

import webdataset

Members = Mapping[str, bytes]

_BLOCK = 512
_REST = 1 << 20
_NAME = re.compile(r"(?s)((?:.*/)?[^./]+)\.([^/]+)")
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSIONS = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class Span(NamedTuple):
    """The bytes of a member in its tar."""

    offset: int
    length: int


def write_tar(file: BinaryIO, samples: Iterable[tuple[str, Members]]) -> None:
    """Write (key, {extension: bytes}) pairs as one WebDataset shard; its headers have no times and no owners."""
    writer = webdataset.TarWriter(file, user="", group="", encoder=False, mtime=0, format="PAX_FORMAT")
    with writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})


def read_tar(file: BinaryIO) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read the (key, {extension: bytes}) pairs of a shard in order.

    Raises:
        tarfile.TarError: if the file is not a complete plain tar, or a sample has two members of one extension.
    """
    for key, spans in read_spans(file):
        members = {}
        for suffix, span in spans.items():
            file.seek(span.offset)
            members[suffix] = file.read(span.length)
        yield key, members


def read_spans(file: BinaryIO) -> Iterator[tuple[str, dict[str, Span]]]:
    """Read the (key, {extension: span}) pairs of a shard in order, from the headers alone.

    Raises:
        tarfile.TarError: as `read_tar` does.
    """
    for key, members in groupby(_sample_members(file), itemgetter(0)):
        spans: dict[str, Span] = {}
        for _, suffix, span in members:
            if suffix in spans:
                raise tarfile.ReadError(f"it holds '{key}.{suffix}' twice")
            spans[suffix] = span
        yield key, spans


def _sample_members(file: BinaryIO) -> Iterator[tuple[str, str, Span]]:
    for info in read_headers(file):
        parts = split_name(info.name)
        if info.isreg() and parts is not None and not is_meta(info.name):
            yield *parts, Span(info.offset_data, info.size)


def read_headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Read the headers of a plain tar in order; the caller may seek in the file between two of them.

    Python's tarfile takes a damaged header for the end, so that the end is checked here.

    Raises:
        tarfile.TarError: if it is no plain tar, damaged, cut off, or several tars joined with cat.
    """
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
            yield info
        end = tar.offset
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError(f"it is damaged or cut off at byte {end}; copy or write it again")
    while rest := file.read(_REST):
        if rest.count(0) < len(rest):
            raise tarfile.ReadError(
                f"it goes on after its end at byte {end}, as tars joined with cat do; keep them as separate shards, or "
                "join them with tar -Af"
            )


def split_name(name: str) -> tuple[str, str] | None:
    """WebDataset's key and extension of a member's name, split at the basename's first dot; None without either.

    The extension is in lower case.
    """
    parts = _NAME.fullmatch(name)
    return (parts[1], parts[2].lower()) if parts is not None else None


def is_meta(name: str) -> bool:
    """Whether WebDataset's readers skip a member of this name, such as one in a folder `__a__`."""
    return _META.match(name) is not None


def compression(head: bytes) -> tuple[str, str] | None:
    """The compression of a file that begins so, and the command that undoes it; None for none that is known."""
    return next((known for magic, known in _COMPRESSIONS.items() if head.startswith(magic)), None)
