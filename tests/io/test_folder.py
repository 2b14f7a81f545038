import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import TEMPORARY_PREFIX, Folder
from tests.mounts import mounted_tmpfs


class Interrupted(Exception):
    pass


def write_half(folder: Folder) -> None:
    with folder.write("a.tar") as file:
        file.write(b"half of the new")
        raise Interrupted


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    folder = Folder(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid4().hex}/out")
    folder.prepare()
    return folder


def test_files_can_be_read_back(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.size("a.tar") is None
    folder.write_bytes("b.json", b"b")
    folder.write_bytes("a.tar", b"a" * 5_000_000)
    assert folder.names() == ["a.tar", "b.json"]
    assert folder.exists("a.tar")
    assert folder.size("a.tar") == 5_000_000
    assert folder.sizes() == {"a.tar": 5_000_000, "b.json": 1}
    assert folder.read_bytes("b.json") == b"b"
    with folder.open("b.json") as file:
        assert file.read() == b"b"
    folder.remove("b.json")
    assert not folder.exists("b.json")
    assert folder.names() == ["a.tar"]


def test_a_writer_that_raises_keeps_the_old_file(folder: Folder) -> None:
    folder.write_bytes("a.tar", b"old")
    with pytest.raises(Interrupted):
        write_half(folder)
    assert folder.read_bytes("a.tar") == b"old"
    assert folder.names() == ["a.tar"]


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write_half(Folder(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_files_appear_only_when_complete(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with folder.write("a.tar") as file:
        file.write(b"whole")
        file.flush()
        assert [path.name.startswith(TEMPORARY_PREFIX) for path in tmp_path.iterdir()] == [True]
        assert folder.names() == []
        assert not folder.exists("a.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert folder.read_bytes("a.tar") == b"whole"


def test_files_can_be_read_by_the_group(tmp_path: Path) -> None:
    Folder(str(tmp_path)).write_bytes("a.tar", b"a")
    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o644


def test_folders_inside_and_trailing_slashes(tmp_path: Path) -> None:
    inner = Folder(f"{tmp_path}/") / "cams"
    assert inner.path == f"{tmp_path}/cams"
    assert inner.names() == []
    inner.prepare()
    inner.write_bytes("a", b"")
    assert (tmp_path / "cams" / "a").exists()
    assert Folder(str(tmp_path)).names() == ["cams"]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=rf"'{path}' is a file, or below a file; choose another `out`"):
            Folder(str(path)).prepare()
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_read_only_folder(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "ro"), pytest.raises(OutputError, match=r"cannot be written \(Read-only.*`out`"):
        Folder(str(tmp_path / "cams")).prepare()


def test_a_full_disk_keeps_existing_files(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "size=1m"):
        folder = Folder(str(tmp_path))
        folder.write_bytes("a.tar", b"a" * 600_000)
        for name in ("a.tar", "b.tar"):
            with pytest.raises(OutputError, match=r"no space left in .*finished file is complete"):
                folder.write_bytes(name, b"b" * 600_000)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
        assert folder.read_bytes("a.tar") == b"a" * 600_000
        folder.remove("a.tar")
        folder.write_bytes("b.tar", b"b" * 600_000)
        assert folder.names() == ["b.tar"]


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """As a quota on files; works where nothing may be mounted."""
    folder = Folder(str(tmp_path))
    folder.write_bytes("a.tar", b"a" * 50_000)
    with _largest_file(100_000), pytest.raises(OutputError, match=r"cannot be used: .*File too large"):
        folder.write_bytes("a.tar", b"b" * 200_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert folder.read_bytes("a.tar") == b"a" * 50_000


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pseudolabel.io.folder import Folder
with Folder(sys.argv[1]).write("a.tar") as file:
    file.write(b"half of the new")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_keeps_the_old_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("a.tar", b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)])
    assert killed.returncode == -9
    assert len(os.listdir(tmp_path)) == 2  # what it was writing stays, out of sight
    assert folder.names() == ["a.tar"]
    assert folder.read_bytes("a.tar") == b"old"
    folder.sweep(["b.tar", "a"])
    assert len(os.listdir(tmp_path)) == 2
    folder.sweep(["b.tar", "a.tar"])
    assert os.listdir(tmp_path) == ["a.tar"]
