"""Where the samples of a tar shard lie, so that any of them is read without the others."""

import hashlib
import io
import os
import re
import tarfile
import tempfile
from array import array
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from webdataset.tariterators import base_plus_ext

from pseudolabel.errors import OutputError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel_train.shard_list import SORT, hint, image_and_mask

_FORMAT = 1  # raise it where the rows change their meaning
_BLOCK = 512
_NOT_A_SAMPLE = re.compile(r"__[^/]*__($|/)")  # as WebDataset's readers have it
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Stamp(NamedTuple):
    """Size and modification time of a shard: what an index is checked by.

    They are enough, because shards are replaced whole (written under another name, then renamed), never edited in
    place: another shard under the same name has another file's time, to the nanosecond, or another size.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "Stamp":
        stat = os.fstat(descriptor)
        return cls(stat.st_size, stat.st_mtime_ns)


class Span(NamedTuple):
    """A member's bytes in the tar."""

    offset: int
    length: int


class ShardIndex:
    """Key and byte ranges of every sample of one shard.

    The rows stay in a memory-mapped file where there is one, so an index takes the same memory for 100 samples as for a
    million, and processes share it.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @property
    def stamp(self) -> Stamp:
        """Of the shard that was indexed."""
        return Stamp(*map(int, self._rows[0]["image"]))

    def __len__(self) -> int:
        return len(self._rows) - 1

    def __getitem__(self, number: int) -> tuple[str, Span, Span]:
        """Key, image and mask of a sample; `number` counts from 0 in the order of the tar."""
        row = self._rows[number + 1]
        image, mask = (Span(*map(int, row[name])) for name in ("image", "mask"))
        return row["key"].decode(), image, mask


def load_index(path: str) -> ShardIndex:
    """The index of a local shard, made from the tar's headers where there is none or the shard has changed since.

    It is kept in a hidden file beside the shard, in the system's folder for temporary files where the shard's cannot be
    written, and in memory where neither can. Processes that make it at once write the same bytes, each under a name of
    its own that is then renamed.

    Raises:
        ShardError: if the shard is missing, compressed, damaged, or does not hold pseudo-masks.
    """
    try:
        with open(path, "rb") as file:
            stamp = Stamp.of(file.fileno())
            for cache in _caches(path):
                rows = _read_cache(cache, stamp)
                if rows is not None:
                    return ShardIndex(rows)
            rows = _index(file, path, stamp)
    except FileNotFoundError as error:
        raise ShardError(
            f"no shard or folder '{path}'; write it with `pseudolabel generate`, or set `shards` of the data set"
        ) from error
    except OSError as error:
        raise ShardError(f"shard '{path}' cannot be read: {error.strerror or error}") from error
    for cache in _caches(path):
        if _write_cache(cache, rows):
            stored = _read_cache(cache, stamp)  # maps the file, so that the rows need not stay in memory
            return ShardIndex(rows if stored is None else stored)
    return ShardIndex(rows)


def _caches(path: str) -> Iterator[Path]:
    beside = Path(path)
    yield beside.with_name(f".{beside.name}.index.npy")
    temporary = Path(tempfile.gettempdir()) / f"pseudolabel-index-{os.getuid()}"
    try:
        temporary.mkdir(mode=0o700, exist_ok=True)
        if temporary.stat().st_uid == os.getuid():  # the name can be guessed, so another user could have taken it
            yield temporary / f"{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()}.npy"
    except OSError:
        return


def _read_cache(cache: Path, stamp: Stamp) -> np.ndarray | None:
    try:
        rows = np.load(cache, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged: the index is made anew
        return None
    if rows.ndim != 1 or rows.dtype.names != _row_type(1).names:
        return None
    is_current = tuple(rows[0]["image"]) == stamp and tuple(rows[0]["mask"]) == (_FORMAT, len(rows) - 1)
    return rows if is_current else None


def _row_type(key_width: int) -> np.dtype:
    """Offset and length of the image and of the mask, and the key in UTF-8."""
    return np.dtype([("image", "<i8", 2), ("mask", "<i8", 2), ("key", f"S{key_width}")])


def _write_cache(cache: Path, rows: np.ndarray) -> bool:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    try:
        Folder(str(cache.parent)).write_bytes(cache.name, buffer.getvalue())
    except OutputError:  # read-only or full
        return False
    return True


def _index(file: BinaryIO, path: str, stamp: Stamp) -> np.ndarray:
    """Read a tar's headers; row 0 says what was indexed, the samples follow."""
    keys, spans = [b""], array("q", [*stamp, _FORMAT, 0])
    remaining = _members(file, path)
    for key, members in groupby(remaining, itemgetter(0)):
        places: dict[str, Span] = {}
        for _, suffix, span in members:
            if suffix in places:
                raise ShardError(f"'{path}' holds '{key}.{suffix}' twice; {hint(path)}")
            places[suffix] = span
        try:
            spans.extend(number for span in image_and_mask(path, key, places) for number in span)
        except ShardError as error:
            if any(other == key for other, _, _ in remaining):
                raise ShardError(
                    f"'{path}': the members of sample '{key}' lie apart in the tar, others are between them; {SORT}"
                ) from error
            raise
        keys.append(key.encode())
    rows = np.zeros(len(keys), _row_type(max(1, *map(len, keys))))
    rows["image"], rows["mask"] = np.frombuffer(spans, np.int64).reshape(-1, 2, 2).swapaxes(0, 1)
    rows["mask"][0, 1] = len(keys) - 1
    rows["key"] = keys
    return rows


def _members(file: BinaryIO, path: str) -> Iterator[tuple[str, str, Span]]:
    """Key, extension and place of every member, from the headers alone; the tar must be whole."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                key, suffix = base_plus_ext(info.name)
                if info.isreg() and key is not None and not _NOT_A_SAMPLE.match(info.name):
                    yield key, suffix.lower(), Span(info.offset_data, info.size)
            end = tar.offset
    except tarfile.TarError as error:
        raise ShardError(_explain(file, path, error)) from error
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
        raise ShardError(f"shard '{path}' is damaged or cut off at byte {end}; {hint(path)}")


def _explain(file: BinaryIO, path: str, error: tarfile.TarError) -> str:
    file.seek(0)
    start = file.read(max(map(len, _COMPRESSED)))
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            return (
                f"shard '{path}' is compressed with {name}, which rules out reading single samples; unpack it to .tar"
            )
    return f"shard '{path}' is not a whole tar ({error}); {hint(path)}"
