"""A process that has imported everything and forks launchers, which spares each of them seconds.

Each line of standard input is the JSON of `fork`'s arguments; the launcher's process id comes back.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

import torch
import torch.distributed.run  # accelerate imports it late
from accelerate.commands import launch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pseudolabel.stages.label  # noqa: F401  (for the ranks that are forked)
from pseudolabel.cli import main as command

RANKS = 2


def start_programs(arguments: list[str]) -> None:
    """What `accelerate launch` does: the ranks are programs of their own."""
    sys.argv = ["accelerate-launch", "--num_processes", str(RANKS), *arguments]
    launch.main()


def fork_ranks(arguments: list[str]) -> None:
    """What accelerate's `notebook_launcher` does: the ranks are forks, which run the command at once."""
    config = LaunchConfig(1, 1, RANKS, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(config, entrypoint=run_rank)(arguments)


def run_rank(arguments: list[str]) -> int:
    torch.multiprocessing._prctl_pr_set_pdeathsig(0)  # the ranks of `accelerate launch` have no parent-death signal
    return command(arguments)


LAUNCHERS: dict[str, Callable[[list[str]], None]] = {"programs": start_programs, "forks": fork_ranks}


def fork(how: str, arguments: list[str], log: str) -> int:
    """Process id of a new launcher, in a new session."""
    if child := os.fork():
        return child
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for stream, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, os.open(log, os.O_WRONLY | os.O_CREAT))):
            os.dup2(handle, stream)
        os.dup2(1, 2)
        LAUNCHERS[how](arguments)
    finally:
        os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a launcher that has ended leaves no zombie
    print("ready", flush=True)
    for line in sys.stdin:
        print(fork(**json.loads(line)), flush=True)
