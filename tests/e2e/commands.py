"""Running the real commands, one process or several, as a user would."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from PIL import Image

from pseudolabel.cli import main
from pseudolabel.io.tar import read_tar
from pseudolabel.shards.sample import decode_cams

LAUNCHER = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
# One thread per process, whatever the number of processes, as the launcher sets by itself: the sums come out alike.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
TIMEOUT = 240


class Running(Protocol):
    """A command that has been started: a `subprocess.Popen` or a fork."""

    pid: int


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """Of the result."""
        return self.out.rstrip().rpartition("\n")[2]

    @property
    def last_note(self) -> str:
        """The last line on standard error."""
        return self.err.rstrip().rpartition("\n")[2]

    def is_clean_error(self) -> bool:
        """Status 1 or 2 and one message on standard error, without a traceback."""
        return self.status in (1, 2) and "pseudolabel" in self.err and "Traceback" not in self.err + self.out


def line(*arguments: object, ranks: int = 0, port: int = 0) -> list[str]:
    """The command line; with `ranks`, through `accelerate launch` with that many processes."""
    launch = ["-m", "accelerate.commands.launch", *LAUNCHER, "--num_processes", str(ranks)]
    # Port 0 lets the launcher find a free one, so that tests can run side by side.
    launch += ["--main_process_port", str(port)]
    return [sys.executable, *(launch if ranks else []), "-m", "pseudolabel", *map(str, arguments)]


def run(*arguments: object, ranks: int = 0, **environment: str) -> Outcome:
    """Run a command to its end."""
    finished = subprocess.run(
        line(*arguments, ranks=ranks),
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(finished.returncode, finished.stdout, finished.stderr)


def call(*arguments: object) -> Outcome:
    """Run a command in this process, which spares the seconds that importing torch takes."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    _forget_loggers()
    return Outcome(status, out.getvalue(), err.getvalue())


def _forget_loggers() -> None:
    """MMEngine's loggers write to the streams of the command that made them, and so would the next command's."""
    if "mmengine.logging" in sys.modules:
        sys.modules["mmengine.logging"].MMLogger._instance_dict.clear()


def succeed(*arguments: object, ranks: int = 0) -> Outcome:
    """Run a command that is to end with status 0, in processes of its own."""
    return expect(0, run(*arguments, ranks=ranks))


def expect(status: int, outcome: Outcome) -> Outcome:
    """The outcome, if it has the status; else a failure with the command's output."""
    assert outcome.status == status, f"status {outcome.status} instead of {status}:\n{outcome.out}\n{outcome.err}"
    return outcome


def start(*arguments: object, ranks: int = 0, log: Path) -> subprocess.Popen[bytes]:
    """Start a command, as the leader of its own process group, with its output in a file."""
    with log.open("wb") as file:
        return subprocess.Popen(
            line(*arguments, ranks=ranks),
            env={**os.environ, **ENVIRONMENT},
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )


def _heed_interrupts() -> None:
    """A suite that runs in the background, as under nohup, ignores Ctrl-C, and so would its commands."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def shards(folder: Path) -> dict[str, bytes]:
    """Bytes of the shards of an output folder, and of the index that lists them."""
    return {path.name: path.read_bytes() for path in sorted([*folder.glob("*.tar"), *folder.glob("index.json")])}


def finished_units(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, inode and time of every shard that has a ledger entry: a shard that is done again gets others."""
    entries = [path for path in folder.glob("*-*.json") if path.with_suffix(".tar").exists()]
    stats = {path.stem: path.with_suffix(".tar").stat() for path in entries}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def failures(folder: Path) -> dict[str, str]:
    """Status of every sample that is in no shard, by key."""
    entries = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*-*.json"))]
    return {failure["key"]: failure["status"] for entry in entries for failure in entry["failures"]}


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    """Members of every sample of an output folder, by key."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            found.update(read_tar(file))
    return found


def assert_alike(folder: Path, reference: Path) -> None:
    """The same samples, but for the last bit of half precision, which may turn where batches had another size."""
    ours, theirs = samples(folder), samples(reference)
    assert list(ours) == list(theirs)
    for key, members in ours.items():
        assert set(members) == set(theirs[key])
        assert members["jpg"] == theirs[key]["jpg"]
        if "png" in members:
            masks = [np.asarray(Image.open(io.BytesIO(found[key]["png"]))) for found in (ours, theirs)]
            assert (masks[0] != masks[1]).mean() < 1e-3
        else:
            cams = [decode_cams(key, found[key]) for found in (ours, theirs)]
            assert cams[0].fields == cams[1].fields
            np.testing.assert_allclose(cams[0].scores.maps, cams[1].scores.maps, rtol=2e-3, atol=1e-4)


def wait_until(condition: Callable[[], bool], seconds: float = TIMEOUT) -> None:
    """Wait for something that another process does; fail where it never comes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def family(process: Running) -> list[psutil.Process]:
    """All processes that a command has started."""
    return psutil.Process(process.pid).children(recursive=True)


def wait_for_all(processes: list[psutil.Process], seconds: float = 120) -> None:
    """Wait until processes have ended by themselves; end and report those that have not."""
    _, alive = psutil.wait_procs(processes, seconds)
    commands = [" ".join(process.cmdline()) for process in alive if process.is_running()]
    for process in alive:
        process.kill()
    assert not commands, commands
