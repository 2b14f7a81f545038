"""Seconds and memory until a job of a million listed samples, stopped before its last unit, is at work again.

    python -m scripts.bench restart --json restart.json               # 1,000,000 samples, 3,906 of 3,907 units finished
    python -m scripts.bench restart --samples 100000

Writes a table that names ten real images over and over, and an output folder whose units the real stages have finished,
with one small sample in each shard. Then the stages start again, each in a process of its own, up to the moment when
work on a unit would begin.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import psutil
import torch

from pseudolabel.config import Experiment
from pseudolabel.errors import NoCamsError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.sample import encode_cams
from pseudolabel.sources.entry import Entry
from pseudolabel.stages import label
from pseudolabel.stages.job import Job
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.refine import write_masks
from pseudolabel.vocabulary import load_vocabulary

from .measure import Peak, in_own_process
from .report import MIB, table

COMMON = ()
IMAGES = 10
SMALL = 8  # pixels of the images in the finished shards
STEPS = {"open_source": "listing", "load_model": "model", "run_settings": "fingerprint"}
RANK = Rank(0, 1, 1, torch.device("cpu"))


class AtWorkError(Exception):
    """Raised where the work on the first unit would begin."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--unit", type=int, default=256)


def measure(args: argparse.Namespace) -> dict:
    """Build the job in a temporary folder and restart both stages."""
    with TemporaryDirectory() as name:
        experiment = write_job(Path(name), args.samples, args.unit)
        return {
            "samples": args.samples,
            "units": -(-args.samples // args.unit),
            "cams": in_own_process(restart_cams, experiment),
            "masks": in_own_process(restart_masks, experiment),
        }


# The job.


def write_job(folder: Path, samples: int, unit: int) -> Experiment:
    """An experiment all of whose units but the last are finished, CAMs and masks."""
    (folder / "images").mkdir()
    for number in range(IMAGES):
        draw_scene(np.random.default_rng(number)).image.save(folder / "images" / f"{number}.jpg")
    write_table(folder / "table.jsonl", samples)
    experiment = load_experiment("shapes")
    experiment = replace(
        experiment,
        out=str(folder / "out"),
        source=replace(experiment.source, kind="table", path=str(folder / "table.jsonl")),
        work=replace(experiment.work, unit=unit, workers=1),
    )
    with patch.object(label, "work_through", finish_all_but_one):
        write_labels(experiment, RANK)
    with suppress(NoCamsError):  # the last unit's
        write_masks(experiment, RANK)
    return experiment


def write_table(path: Path, samples: int) -> None:
    names = [entry.name for entry in load_vocabulary("shapes").classes]
    with path.open("w", encoding="utf-8") as file:
        for number in range(samples):
            labels = sorted({names[number % len(names)], names[number // 7 % len(names)]})
            row = {"key": f"sample_{number:08d}", "image": f"images/{number % IMAGES}.jpg", "labels": labels}
            file.write(json.dumps(row) + "\n")


def finish_all_but_one(job: Job[Entry], *_: object) -> None:
    image = draw_scene(np.random.default_rng(0), SMALL).image
    maps = np.linspace(0, 1, SMALL * SMALL).reshape(1, SMALL, SMALL).astype(np.float16)
    for unit in job.units[:-1]:
        entry = unit.entries[0]
        classes = entry.classes[:1]
        sample, scores = Sample(entry.key, image, classes), ScoreMaps(entry.key, classes, maps, (SMALL, SMALL))
        job.write(unit, [(entry.key, encode_cams(sample, scores, load_vocabulary("shapes")))], [], time.monotonic())


# The restart.


def restart_cams(experiment: Experiment) -> dict:
    """Seconds of each part until the first unit, and memory."""
    torch.set_num_threads(1)
    process, marks = psutil.Process(), Marks()
    parts = {"python and imports": (time.time() - process.create_time(), time.process_time())}
    peak, before = Peak(RANK.device), process.memory_info().rss
    listed: list[int] = []

    def begin(job: Job[Entry], *_: object) -> None:
        marks.mark("ledger")
        if len(left := job.choose(job.rank.assigned(job.units))) != 1:
            raise SystemExit(f"{len(left)} units are left to do instead of one")
        marks.mark("choice")
        raise AtWorkError

    def follow(name: str, step: Callable) -> Callable:
        def followed(*arguments: object) -> object:
            result = step(*arguments)
            marks.mark(STEPS[name])
            if name == "open_source":
                listed.append(process.memory_info().rss - before)
            return result

        return followed

    with ExitStack() as stack:
        for name in STEPS:
            stack.enter_context(patch.object(label, name, follow(name, getattr(label, name))))
        stack.enter_context(patch.object(label, "work_through", begin))
        with suppress(AtWorkError):
            write_labels(experiment, RANK)
    parts |= marks.parts
    seconds, cpu_seconds = map(sum, zip(*parts.values(), strict=True))
    return {
        "parts": {name: {"seconds": own, "cpu_seconds": cpu} for name, (own, cpu) in parts.items()},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": peak.bytes(),
        "list_bytes": listed[0],
    }


class Marks:
    """Seconds and CPU seconds between marks; other work on the machine changes CPU seconds less."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, float]] = {}
        self._last = self._now()

    def mark(self, name: str) -> None:
        (seconds, cpu), self._last = self._last, self._now()
        self.parts[name] = self._last[0] - seconds, self._last[1] - cpu

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def restart_masks(experiment: Experiment) -> dict:
    """Seconds until all finished units are known, where there is nothing to do but to miss the last CAM shard."""
    peak, marks = Peak(RANK.device), Marks()
    with suppress(NoCamsError):
        write_masks(experiment, RANK)
    marks.mark("all")
    seconds, cpu_seconds = marks.parts["all"]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak.bytes()}


def tables(report: dict) -> list[str]:
    cams, masks = report["cams"], report["masks"]
    parts = {**cams["parts"], "all, CAMs": cams, "masks, beside it": masks}
    rows = [[name, f"{part['seconds']:.2f}", f"{part['cpu_seconds']:.2f}"] for name, part in parts.items()]
    rows.append(["peak above imports, MiB", f"{cams['peak_bytes'] / MIB:.0f}", ""])
    rows.append(["bytes per listed sample", f"{cams['list_bytes'] / report['samples']:.0f}", ""])
    return [table(f"Restart at {report['samples']:,} samples in {report['units']:,} units", ["", "s", "CPU s"], rows)]
