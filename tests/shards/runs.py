"""Output folders as a finished job leaves them, written with the job's own code."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.packing import TAR, Packing
from pseudolabel.stages.job import open_job
from pseudolabel.stages.units import Unit

SETTINGS = {"method": {"class_weight": 1.21, "timesteps": [1, 50]}, "work": {"unit": 1}}


def one_rank() -> Rank:
    return Rank(0, 1, 1, torch.device("cpu"))


def write_run(path: Path, kind: str, shards: Sequence[Sequence[tuple[str, Members]]], packing: Packing = TAR) -> Folder:
    units = [Unit(number, range(len(samples))) for number, samples in enumerate(shards)]
    folder = Folder(str(path))
    inputs_of = lambda unit, failed: f"inputs {unit.number}"  # noqa: E731
    with open_job(folder, kind, SETTINGS, units, inputs_of, one_rank(), packing=packing) as job:
        for unit, samples in zip(units, shards, strict=True):
            job.write(unit, samples, [], time.monotonic())
        job.finish()
    return folder
