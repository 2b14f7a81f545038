"""Commands as forks of `tests.e2e.launcher`, of which each process of the suite has one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from signal import SIGKILL

from tests.e2e.commands import ENVIRONMENT, TIMEOUT, Outcome

NUMBERS = count()


@dataclass
class Fork:
    """A running command, with the methods of `subprocess.Popen` that tests use."""

    pid: int
    status: Path
    returncode: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        if self.returncode is None and self.status.exists():
            self.returncode = int(self.status.read_text())
        return self.returncode

    def wait(self, timeout: float = TIMEOUT) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(SIGKILL)


@cache
def server() -> tuple[subprocess.Popen[str], tempfile.TemporaryDirectory[str]]:
    """The process that forks, and a folder for what its commands print; both end with this process."""
    command = [sys.executable, "-m", "tests.e2e.launcher"]
    environment = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process, tempfile.TemporaryDirectory(prefix="forks-")


def start_fork(*arguments: object, ranks: int = 0, how: str = "", log: Path | None = None) -> Fork:
    """Start a command, with its output in a file; with `ranks`, below a launcher with that many processes."""
    process, folder = server()
    assert process.stdin is not None
    assert process.stdout is not None
    name = Path(folder.name) / str(next(NUMBERS))
    status = name.with_suffix(".status")
    request = {
        "how": how or ("forks" if ranks else "one"),
        "arguments": list(map(str, arguments)),
        "ranks": ranks,
        "out": str(log or name.with_suffix(".out")),
        "err": str(log or name.with_suffix(".err")),
        "status": str(status),
        "folder": os.getcwd(),
        "environment": {**os.environ, **ENVIRONMENT},
    }
    print(json.dumps(request), file=process.stdin, flush=True)
    return Fork(int(process.stdout.readline()), status)


def run_fork(*arguments: object, ranks: int = 0) -> Outcome:
    """Run a command to its end."""
    fork = start_fork(*arguments, ranks=ranks)
    status = fork.wait()
    out, err = (fork.status.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
    return Outcome(status, out, err)
