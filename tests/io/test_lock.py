import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.lock import lock_output

HOLDER = """
import sys
from pseudolabel.io.folder import Folder
from pseudolabel.io.lock import lock_output
with lock_output(Folder(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_same_rank_twice_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with (
        lock_output(folder, 0),
        pytest.raises(OutputError, match=rf"another run writes to '{tmp_path}' \(process {os.getpid()} on "),
        lock_output(folder, 0),
    ):
        pytest.fail("the second one came in")
    with lock_output(folder, 0):
        pass


def test_ranks_of_one_run_work_side_by_side(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with lock_output(folder, 0), lock_output(folder, 1):
        assert folder.names() == [".lock-0", ".lock-1"]


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"process {holder.pid} on "), lock_output(folder, 0):
            pytest.fail("the second one came in")
        holder.kill()
        holder.wait()
        with lock_output(folder, 0):
            pass


def test_folders_at_urls_have_no_locks() -> None:
    folder = Folder("memory://locks")
    folder.prepare()
    with lock_output(folder, 0), lock_output(folder, 0):
        assert folder.names() == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_reported_in_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = Folder(str(tmp_path))
    with lock_output(folder, 0), lock_output(folder, 1):
        pass
    assert caplog.messages == [
        f"'{tmp_path}' is on a file system without locks ({os.strerror(number)}): make sure that only one run writes "
        "there"
    ]
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".lock-")]


def test_a_lock_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".lock-0").mkdir()
    with pytest.raises(OutputError, match=r"lock-0' cannot be locked: "), lock_output(Folder(str(tmp_path)), 0):
        pytest.fail("it came in")
