"""A process that has imported everything and forks commands, which spares each of them seconds.

Each line of standard input is the JSON of a `Request`; the process id of the fork comes back. A fork begins and ends in
another way than a Python program: tests of those moments run programs.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import torch
import torch.distributed.run  # accelerate imports it late
from accelerate.commands import launch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pseudolabel.stages.label  # noqa: F401  (for the commands that are forked)
from pseudolabel.cli import main as command


@dataclass(frozen=True)
class Request:
    """A command to start, as the leader of a session of its own.

    Attributes:
        how: a key of `COMMANDS`.
        arguments: of the command.
        ranks: number of processes.
        out, err: files for its output; may be the same.
        status: file that its exit status is written to when it has ended, as in `subprocess.Popen.returncode`.
        folder: its working directory.
        environment: all its variables; those that libraries read while they are imported have no effect.
    """

    how: str
    arguments: list[str]
    ranks: int
    out: str
    err: str
    status: str
    folder: str
    environment: dict[str, str]


def start_programs(arguments: list[str], ranks: int) -> None:
    """What `accelerate launch` does: the ranks are programs of their own."""
    sys.argv = ["accelerate-launch", "--num_processes", str(ranks), *arguments]
    launch.main()


def fork_ranks(arguments: list[str], ranks: int) -> None:
    """What accelerate's `notebook_launcher` does: the ranks are forks, which run the command at once."""
    config = LaunchConfig(1, 1, ranks, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(config, entrypoint=run_rank)(arguments)


def run_rank(arguments: list[str]) -> None:
    torch.multiprocessing._prctl_pr_set_pdeathsig(0)  # the ranks of `accelerate launch` have no parent-death signal
    sys.exit(command(arguments))


def run_here(arguments: list[str], ranks: int) -> None:
    """One process, without a launcher."""
    sys.exit(command(arguments))


COMMANDS: dict[str, Callable[[list[str], int], None]] = {
    "programs": start_programs,
    "forks": fork_ranks,
    "one": run_here,
}


def fork(request: Request) -> int:
    """Process id of the new command."""
    if child := os.fork():
        Thread(target=report, args=(child, Path(request.status)), daemon=True).start()
        return child
    status = 1
    try:
        os.setsid()
        redirect(0, os.devnull, os.O_RDONLY)
        redirect(1, request.out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        redirect(2, request.err, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        COMMANDS[request.how](request.arguments, request.ranks)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def redirect(stream: int, path: str, flags: int) -> None:
    os.dup2(os.open(path, flags, 0o644), stream)


def report(child: int, path: Path) -> None:
    """Wait for a command and write its exit status."""
    _, status = os.waitpid(child, 0)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(str(os.waitstatus_to_exitcode(status)))
    unfinished.rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a suite runs in the background
    print("ready", flush=True)
    for line in sys.stdin:
        print(fork(Request(**json.loads(line))), flush=True)
