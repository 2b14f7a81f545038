"""Ranks: the processes of one run, and the part of the work that each is assigned."""

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
from pseudolabel.runtime.cores import share_of_cores
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
        run: a name that all ranks of this run, and no other run's, have in common; empty for a single process.
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
        """The units of this process: every `count`-th, so that all processes move through the list together."""
        return units[self.index :: self.count]

    def cores(self) -> int:
        """Processor cores for this process's share of the machine, at least one."""
        return share_of_cores(self.local_count)

    def open_claim(self, folder: Folder) -> str:
        """Name of a file that the one rank creates that says how this job in a folder ended; empty for a single rank.

        Every rank asks when it begins the job, so that all count alike how often their run has worked there.
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
        """Wait until every process of the run is here; for the start of a stage, never inside its loop."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def current_rank() -> Rank:
    """The rank that `accelerate launch` gave this process, or the only one of a plain run.

    A rank ends with its launcher from here on at the latest.
    """
    end_with_launcher()
    # Without an accelerator the processes must be told to meet over gloo, or each takes itself for the only one.
    state = PartialState(cpu=not torch.accelerator.is_available())
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Rank(state.process_index, state.num_processes, local_count, state.device, run=_run_name(state.num_processes))


@cache
def _run_name(ranks: int) -> str:
    """A name that the first of several ranks makes up and tells the others."""
    return str(broadcast_object_list([uuid4().hex])[0]) if ranks > 1 else ""
