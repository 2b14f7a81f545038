"""Work units and ranks: who does what, without anybody asking anybody."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar
from uuid import uuid4

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pseudolabel.errors import SettingError
from pseudolabel.io.folder import Folder
from pseudolabel.runtime.watchdog import end_with_launcher
from pseudolabel.shards.ledger import digest
from pseudolabel.sources.entry import Entry
from pseudolabel.stages.workers import share_of_cores
from pseudolabel.vocabulary import Vocabulary

T = TypeVar("T")
CLAIM_PREFIX = ".reported-"
_OPENED: Counter[tuple[str, int]] = Counter()


@dataclass(frozen=True)
class Unit(Generic[T]):
    """A fixed slice of the sorted input list; it becomes exactly one shard."""

    number: int
    entries: Sequence[T]


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

    def share(self, units: Sequence[Unit[T]]) -> Sequence[Unit[T]]:
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

    def meet(self) -> None:
        """Wait until every process of the run has come here; for the start of a stage, never inside its loop."""
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


def cut_units(entries: Sequence[Entry], size: int) -> list[Unit[Entry]]:
    """Cut the sorted list into units of `size` samples; the last one may be smaller.

    Raises:
        SettingError: if `size` is not positive.
    """
    if size < 1:
        raise SettingError(f"--work.unit {size}: a unit holds at least one sample")
    return [Unit(start // size, entries[start : start + size]) for start in range(0, len(entries), size)]


class UnitDigests:
    """Digests of what goes into the units of one list, each of a whole unit made once.

    Args:
        describe: what matters of an entry, ready for JSON.
    """

    def __init__(self, describe: Callable[[Entry], Any]) -> None:
        self._describe = describe
        self._whole: dict[int, str] = {}

    def __call__(self, unit: Unit[Entry], without: frozenset[str] = frozenset()) -> str:
        """Digest of a unit, leaving out the samples that failed, which may be corrected."""
        if without:
            return digest([self._describe(entry) for entry in unit.entries if entry.key not in without])
        if unit.number not in self._whole:
            self._whole[unit.number] = digest(list(map(self._describe, unit.entries)))
        return self._whole[unit.number]


def describe_words(vocabulary: Vocabulary, with_synonyms: bool = False) -> dict[str, Any]:
    """The class names and the names in prompts, in their order, for settings; synonyms where something reads them."""
    words: dict[str, Any] = {
        "names": vocabulary.names,
        "prompts": [entry.prompt for entry in vocabulary.classes],
    }
    if with_synonyms:
        words["synonyms"] = [entry.synonyms for entry in vocabulary.classes]
    return words
