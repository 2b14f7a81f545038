"""Where the samples of a tar shard are, so that each can be read without the others."""

import hashlib
import io
import os
import tarfile
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from pseudolabel.errors import OutputError, ShardError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Span, compression, read_spans
from pseudolabel.shards.find import CAM_MEMBER, SORT, hint, image_and_target

_FORMAT = 2  # increase it when the rows' meaning changes


class Stamp(NamedTuple):
    """Size and modification time of a shard: it shows whether an index is up to date.

    They are enough, because shards are replaced (written under another name, then renamed), never edited in place:
    another shard under the same name has another file's time, to the nanosecond, or another size. For a URL, a digest
    of the file system's metadata replaces the time.
    """

    size: int
    version: int

    @classmethod
    def of(cls, path: str, descriptor: int | None = None) -> "Stamp":
        """The stamp of a path, or of the local file that is open there. Raises OSError if there is none."""
        fs, name = open_filesystem(path)
        if isinstance(fs, LocalFileSystem):
            stat = os.stat(name if descriptor is None else descriptor)
            return cls(stat.st_size, stat.st_mtime_ns)
        digest = hashlib.sha256(str(fs.ukey(name)).encode()).digest()
        return cls(int(fs.info(name)["size"] or 0), int.from_bytes(digest[:7], "big"))


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

    @property
    def holds_cams(self) -> bool:
        """Whether the samples have class activation maps, not masks."""
        return bool(self._rows[0]["key"] == b"cams")

    def __len__(self) -> int:
        return len(self._rows) - 1

    def __getitem__(self, number: int) -> tuple[str, Span, Span]:
        """Key, image, and mask or maps of a sample; `number` counts from 0 in the order of the tar."""
        row = self._rows[number + 1]
        image, target = (Span(*map(int, row[name])) for name in ("image", "target"))
        return row["key"].decode(), image, target


def load_index(path: str) -> ShardIndex:
    """The index of a shard, made from the tar's headers where there is none or the shard has changed since.

    It is kept in a hidden file beside the shard, in the system's folder for temporary files where the shard is behind a
    URL or its folder cannot be written, and in memory where neither is possible. Processes that make it at once write
    the same bytes, each to a temporary file that is then renamed.

    Raises:
        ShardError: if the shard is missing, compressed, damaged, or holds neither masks nor CAMs.
    """
    try:
        stamp = Stamp.of(path)
        for cache in _caches(path):
            rows = _read_cache(cache, stamp)
            if rows is not None:
                return ShardIndex(rows)
        fs, name = open_filesystem(path)
        with fs.open(name, "rb") as file:
            rows = _index(file, path, stamp)
    except FileNotFoundError as error:
        raise ShardError(
            f"no shard or folder '{path}'; write it with `pseudolabel generate`, or give another `shards`"
        ) from error
    except OSError as error:
        raise ShardError(f"shard '{path}' cannot be read: {error.strerror or error}") from error
    for cache in _caches(path):
        if _write_cache(cache, rows):
            stored = _read_cache(cache, stamp)  # maps the file, so that the rows need not stay in memory
            return ShardIndex(rows if stored is None else stored)
    return ShardIndex(rows)


def _caches(path: str) -> Iterator[Path]:
    fs, name = open_filesystem(path)
    if isinstance(fs, LocalFileSystem):
        yield Path(name).with_name(f".{Path(name).name}.index.npy")
    temporary = Path(tempfile.gettempdir()) / f"pseudolabel-index-{os.getuid()}"
    try:
        temporary.mkdir(mode=0o700, exist_ok=True)
        if temporary.stat().st_uid == os.getuid():  # the name can be guessed, so another user could have taken it
            yield temporary / f"{hashlib.sha256(fs.unstrip_protocol(name).encode()).hexdigest()}.npy"
    except OSError:
        return


def _read_cache(cache: Path, stamp: Stamp) -> np.ndarray | None:
    try:
        rows = np.load(cache, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged: a new index is made
        return None
    if rows.ndim != 1 or rows.dtype.names != _row_type(1).names:
        return None
    is_current = tuple(rows[0]["image"]) == stamp and tuple(rows[0]["target"]) == (_FORMAT, len(rows) - 1)
    return rows if is_current else None


def _row_type(key_width: int) -> np.dtype:
    """Offset and length of the image and of the mask or the maps, and the key in UTF-8."""
    return np.dtype([("image", "<i8", 2), ("target", "<i8", 2), ("key", f"S{key_width}")])


def _write_cache(cache: Path, rows: np.ndarray) -> bool:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    try:
        Folder(str(cache.parent)).write_bytes(cache.name, buffer.getvalue())
    except OutputError:  # read-only or full
        return False
    return True


def _index(file: BinaryIO, path: str, stamp: Stamp) -> np.ndarray:
    """Read a tar's headers; row 0 is the stamp, the samples follow."""
    keys, spans = [b"masks"], array("q", [*stamp, _FORMAT, 0])
    remaining = read_spans(file)
    try:
        for key, members in remaining:
            try:
                spans.extend(number for span in image_and_target(path, key, members) for number in span)
            except ShardError as error:
                if any(other == key for other, _ in remaining):
                    raise ShardError(
                        f"'{path}': the members of sample '{key}' are not adjacent in the tar; {SORT}"
                    ) from error
                raise
            keys.append(key.encode())
            if CAM_MEMBER in members:
                keys[0] = b"cams"
    except tarfile.TarError as error:
        raise ShardError(_explain(file, path, error)) from error
    rows = np.zeros(len(keys), _row_type(max(map(len, keys))))
    rows["image"], rows["target"] = np.frombuffer(spans, np.int64).reshape(-1, 2, 2).swapaxes(0, 1)
    rows["target"][0, 1] = len(keys) - 1
    rows["key"] = keys
    return rows


def _explain(file: BinaryIO, path: str, error: tarfile.TarError) -> str:
    file.seek(0)
    if known := compression(file.read(8)):
        return (
            f"shard '{path}' is compressed with {known[0]}, so that single samples cannot be read; unpack it to .tar "
            f"with {known[1]}"
        )
    return f"shard '{path}' is not a complete tar ({error}); {hint(path)}"
