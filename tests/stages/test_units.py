import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.errors import SettingError
from pseudolabel.io.json_text import digest
from pseudolabel.runtime.rank import Rank, current_rank
from pseudolabel.sources.entry import Entry
from pseudolabel.stages.units import UnitDigests, cut_units


def entries(count: int) -> list[Entry]:
    return [Entry(f"{number:04d}", f"{number}.jpg", (1,), "list") for number in range(count)]


@given(count=st.integers(0, 200), size=st.integers(1, 30), world=st.integers(1, 9))
def test_every_sample_belongs_to_one_rank(count: int, size: int, world: int) -> None:
    units = cut_units(entries(count), size)
    assert [unit.number for unit in units] == list(range(len(units)))
    assert list(chain.from_iterable(unit.entries for unit in units)) == entries(count)
    assert all(len(unit.entries) == size for unit in units[:-1])
    ranks = [Rank(index, world, world, torch.device("cpu")) for index in range(world)]
    shares = [rank.assigned(units) for rank in ranks]
    assert sorted(unit.number for share in shares for unit in share) == list(range(len(units)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("size", [0, -1])
def test_units_are_not_empty(size: int) -> None:
    with pytest.raises(SettingError, match=r"`work\.unit`"):
        cut_units(entries(3), size)


def test_a_plain_process_is_a_single_rank() -> None:
    rank = current_rank()
    assert (rank.index, rank.count, rank.local_count, rank.is_main) == (0, 1, 1, True)
    assert rank.cores() == len(os.sched_getaffinity(0))
    assert replace(rank, local_count=1000).cores() == 1
    rank.barrier()  # returns at once


def test_the_package_imports_without_a_model() -> None:
    """The command line answers quickly: help needs no torch."""
    script = "import sys, pseudolabel.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_units_are_digested_once_by_content() -> None:
    described = []

    def describe(entry: Entry) -> list[object]:
        described.append(entry.key)
        return [entry.key, *entry.classes]

    digests, units = UnitDigests(describe), cut_units(entries(6), 2)
    whole = [digests(unit) for unit in units]
    assert whole == [digest([["0000", 1], ["0001", 1]]), digest([["0002", 1], ["0003", 1]]), digests(units[2])]
    assert [digests(unit) for unit in units] == whole
    assert len(described) == 6
    assert digests(units[0], frozenset({"0000"})) == digest([["0001", 1]])
