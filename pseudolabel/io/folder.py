"""An output folder, local or at an fsspec URL. A file appears in it only when it is complete."""

import errno
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from pseudolabel.errors import FullDiskError, OutputError
from pseudolabel.io.filesystem import open_filesystem

TEMPORARY_PREFIX = ".unfinished-"
_SYNCING = 16  # threads
LONGEST_IN_TEMPORARY = 200  # bytes of a file name; file systems allow 255, including prefix and suffix


class Folder:
    """A folder of results.

    Attributes:
        path: the folder as the user wrote it.
        local: its path on this machine's file system; None for a URL.
        setting: the setting that names it, for messages.
    """

    def __init__(self, path: str, setting: str = "`out`") -> None:
        self.path, self.setting = path.rstrip("/") or path, setting
        self._fs, self._root = open_filesystem(self.path)
        self.local = Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.path}/{name}", self.setting)

    def prepare(self) -> None:
        """Create the folder and check that files can be written in it.

        Raises:
            OutputError: if they cannot.
        """
        with self._explained():
            self._fs.makedirs(self._root, exist_ok=True)
        name = f"{TEMPORARY_PREFIX}probe-{uuid4().hex}"  # not the process id: ranks on two machines may share one
        self.write_bytes(name, b"")
        with self._explained():
            self._fs.rm_file(self._name(name))

    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._name(name)))

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""
        try:
            return int(self._fs.size(self._name(name)))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Sorted names of the complete files directly in the folder; empty if the folder does not exist."""
        if not self._fs.isdir(self._root):
            return []
        found = self._fs.ls(self._root, detail=False, refresh=True)
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in found]
        return sorted(name for name in names if not name.startswith(TEMPORARY_PREFIX))

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file directly in the folder, by name, from one listing."""
        found = self._fs.ls(self._root, detail=True, refresh=True)
        return {info["name"].rstrip("/").rsplit("/", 1)[-1]: int(info["size"] or 0) for info in found}

    def read_bytes(self, name: str) -> bytes:
        return self._fs.cat_file(self._name(name))

    def open(self, name: str) -> BinaryIO:
        return self._fs.open(self._name(name), "rb")

    def remove(self, name: str) -> None:
        with self._explained():
            self._fs.rm_file(self._name(name))

    def sweep(self, names: Collection[str]) -> None:
        """Remove the temporary files that killed writers of these files left behind, which would fill the disk."""
        if self.local is None:
            return
        with self._explained():
            for path in self.local.glob(f"{TEMPORARY_PREFIX}*"):
                if path.name.removeprefix(TEMPORARY_PREFIX).rpartition("-")[0] in names:
                    path.unlink(missing_ok=True)

    def sweep_all(self) -> None:
        """Remove what killed writers left behind here and in all subfolders; no other process may write there."""
        if self.local is None:
            return
        with self._explained():
            for path in self.local.rglob(f"{TEMPORARY_PREFIX}*"):
                path.unlink(missing_ok=True)

    def write_bytes(self, name: str, data: bytes, synced: bool = True) -> None:
        """Write a file; it appears only when it is complete.

        Args:
            name: of the file, below the folder.
            data: its bytes.
            synced: False leaves it to a later `sync`, which is much faster for many small files.

        Raises:
            OutputError: if the folder is full or cannot be written.
        """
        with self.write(name, synced) as file:
            file.write(data)

    def sync(self, names: Iterable[str]) -> None:
        """Let files that were written without it survive a power failure; nothing to do behind a URL.

        Raises:
            OutputError: if the disk cannot.
        """
        if self.local is None:
            return
        paths = [self.local / name for name in names]
        with self._explained(), ThreadPoolExecutor(_SYNCING) as pool:  # the disk joins what waits at the same time
            list(pool.map(_sync, [*paths, *{path.parent for path in paths}]))

    def append(self, name: str, lines: bytes) -> None:
        """Append complete lines to a file, synced on a local disk.

        If a killed writer left an unfinished line, it is ended first.

        Raises:
            OutputError: if the folder is full or cannot be written.
        """
        if self.local is None:
            before = self.read_bytes(name) if self.exists(name) else b""
            self.write_bytes(name, before + lines)
            return
        with self._explained(), open(self.local / name, "ab+", opener=_not_through_links) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read() == b"\n" else b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def claim(self, name: str) -> bool:
        """Create an empty file, so that exactly one of several processes gets True; False if the file exists already.

        At a URL two processes that call this at the same moment may both get True.
        """
        with self._explained():
            if self.local is not None:
                try:
                    (self.local / name).touch(exist_ok=False)
                except FileExistsError:
                    return False
                return True
        if self.exists(name):
            return False
        self.write_bytes(name, b"")
        return True

    @contextmanager
    def write(self, name: str, synced: bool = True) -> Iterator[BinaryIO]:
        """Open a file that appears under its name only when it is complete and, on a local disk, synced.

        The name may contain subfolders; they are created. `synced` is that of `write_bytes`.

        Raises:
            OutputError: if the folder is full or cannot be written.
        """
        with self._explained():
            if "/" in name:
                self._fs.makedirs(self._name(name).rpartition("/")[0], exist_ok=True)
            if self.local is None:
                with self._upload(name) as file:
                    yield file
            else:
                with _replace(self.local / name, synced) as file:
                    yield file

    @contextmanager
    def _upload(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with self._fs.open(self._name(name), "wb") as remote:
                while chunk := file.read(1 << 22):
                    remote.write(chunk)

    def _name(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = FullDiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else OutputError
            raise kind(self._explain(error)) from error

    def _explain(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"no space left in '{self.path}'; every finished file is complete. Free some space and run the same "
                "command again: it continues where it stopped"
            )
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            fix = f"choose another {self.setting} or change its permissions"
            return f"'{self.path}' cannot be written ({error.strerror}); {fix}"
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            return f"'{self.path}' is a file, or below a file; choose another {self.setting}"
        return f"'{self.path}' cannot be used: {error}"


@contextmanager
def _replace(target: Path, synced: bool) -> Iterator[BinaryIO]:
    """Write next to the target, sync, rename to the target, sync the folder; a failure leaves nothing behind."""
    name = target.name if len(os.fsencode(target.name)) <= LONGEST_IN_TEMPORARY else ""  # no shard has a name this long
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f"{TEMPORARY_PREFIX}{name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if synced:
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
