import os
import subprocess
import sys
from pathlib import Path

import pytest

from pseudolabel.shards.folder import Folder, OutputError
from pseudolabel.shards.lock import lock_output

HOLDER = """
import sys
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.lock import lock_output
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


def test_the_system_lets_go_of_a_killed_holder(tmp_path: Path) -> None:
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


def test_folders_behind_urls_have_no_locks() -> None:
    folder = Folder("memory://locks")
    folder.prepare()
    with lock_output(folder, 0), lock_output(folder, 0):
        assert folder.names() == []
