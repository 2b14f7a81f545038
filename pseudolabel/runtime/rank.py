"""Ranks: the processes of one run, and the units that each is assigned."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar
from uuid import uuid4

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pseudolabel.io.folder import Folder
from pseudolabel.runtime.cores import cores_per_process
from pseudolabel.runtime.watchdog import end_with_launcher

T = TypeVar("T")
CLAIM_PREFIX = ".reported-"
_OPENED: Counter[tuple[str, int]] = Counter()


@dataclass(frozen=True)
class Rank:
    """One process of the run.

    Attributes:
        index, count: this process among all processes.
        local_count: processes on this machine.
        device: the device that Accelerate gives it.
        run: an id that the ranks of this run share; empty for a single process.
    """

    index: int
    count: int
    local_count: int
    device: torch.device
    run: str = ""

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def assigned(self, units: Sequence[T]) -> Sequence[T]:
        """The units of this process: every `count`-th, so that all ranks advance through the list at the same rate."""
        return units[self.index :: self.count]

    def cores(self) -> int:
        """CPU cores for this process, at least 1."""
        return cores_per_process(self.local_count)

    def open_claim(self, folder: Folder) -> str:
        """Name of a file that only the rank that reports this job's result creates in its folder; empty for one rank.

        Every rank calls this once per job, so that all ranks get the same name.
        """
        if not self.run:
            return ""
        if self.is_main:
            for name in folder.names():
                if name.startswith(CLAIM_PREFIX) and self.run not in name:
                    folder.remove(name)
        _OPENED[folder.path, self.index] += 1
        return f"{CLAIM_PREFIX}{self.run}-{_OPENED[folder.path, self.index]}"

    def barrier(self) -> None:
        """Wait for all ranks; for the start of a stage, never inside its loop."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def current_rank() -> Rank:
    """The rank that `accelerate launch` gave this process, or the only rank of a plain run.

    From here on, the process ends with its launcher.
    """
    end_with_launcher()
    # Without an accelerator, only `cpu=True` selects gloo; otherwise each process would be the only rank.
    state = PartialState(cpu=not torch.accelerator.is_available())
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Rank(state.process_index, state.num_processes, local_count, state.device, run=_run_id(state.num_processes))


@cache
def _run_id(ranks: int) -> str:
    """A random id, broadcast by the first of several ranks; empty for one rank."""
    return str(broadcast_object_list([uuid4().hex])[0]) if ranks > 1 else ""
