"""A process that has imported everything and forks launchers, which spares each of them seconds.

Each line of standard input is the JSON of `Launch`; the launcher's process id comes back.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

import torch.multiprocessing
from accelerate.commands import launch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.run import main as _  # noqa: F401  (accelerate imports it late)

import pseudolabel.stages.label  # noqa: F401  (for the ranks that are forked)
from pseudolabel.cli import main as command


def start_programs(arguments: list[str]) -> None:
    """What `accelerate launch` does: the ranks are programs of their own."""
    sys.argv = ["accelerate-launch", *arguments]
    launch.main()


def fork_ranks(arguments: list[str]) -> None:
    """What accelerate's `notebook_launcher` does: the ranks are forks, here two, that run a command at once."""
    config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(config, entrypoint=run_rank)(arguments)


def run_rank(arguments: list[str]) -> int:
    torch.multiprocessing._prctl_pr_set_pdeathsig(0)  # the ranks of `accelerate launch` have none either
    return command(arguments)


LAUNCHERS: dict[str, Callable[[list[str]], None]] = {"programs": start_programs, "forks": fork_ranks}


def fork(how: str, arguments: list[str], log: str, variables: dict[str, str]) -> int:
    """Process id of a new launcher, which leads a process group of its own."""
    if child := os.fork():
        return child
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.update(variables)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        LAUNCHERS[how](arguments)
    finally:
        os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a launcher that has ended leaves no zombie
    print("ready", flush=True)
    for line in sys.stdin:
        print(fork(**json.loads(line)), flush=True)
