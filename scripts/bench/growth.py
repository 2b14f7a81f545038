"""How cost grows: with processes, samples, classes, pixels and the size of units; on the CPU, with the shipped model.

    python -m scripts.bench growth --json growth.json
    python -m scripts.bench growth --samples 16 --ranks 1 2 --sizes 256         # a small run

Every figure is that of the real stages, with one thread per process. Processes share the machine's cores, so more of
them than cores gain nothing. Memory is that of a process of its own above what its imports take.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pseudolabel.config import Experiment
from pseudolabel.experiment_file import load_experiment
from pseudolabel.shapes.world import SIZE, draw_scene
from pseudolabel.stages.label import write_labels
from pseudolabel.vocabulary import load_vocabulary

from .commands import ONE_THREAD, launch
from .measure import Peak, in_own_process
from .report import MIB, table
from .restart import RANK
from .scale import finished

COMMON = ()
NAMES = [entry.name for entry in load_vocabulary("shapes").classes]
UNIT, CLASSES = 16, 2  # where nothing else is said
IMAGES = 16  # drawn of each size, and listed over and over


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--samples", type=int, default=64, help="per process, and the fewest whose memory is measured")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of images in pixels")


def measure(args: argparse.Namespace) -> dict:
    report: dict = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder, [SIZE, *args.sizes])
        if "processes" in args.parts:
            report["processes"] = [run_ranks(folder, ranks, args.samples) for ranks in args.ranks]
        if "memory" in args.parts:
            report["memory"] = measure_memory(folder, args.samples, args.sizes)
    return report


def tables(report: dict) -> list[str]:
    return [show(report) for part, show in TABLES.items() if part in report]


# The data.


def draw_images(folder: Path, sizes: list[int]) -> None:
    for size in sizes:
        (folder / str(size)).mkdir()
        for number in range(IMAGES):
            draw_scene(np.random.default_rng(number), size).image.save(folder / str(size) / f"{number}.jpg", quality=95)


def write_table(folder: Path, samples: int, classes: int, size: int) -> Path:
    """A table of so many samples, each with so many classes."""
    path = folder / f"{samples}-{classes}-{size}.jsonl"
    rows = (
        {"key": f"{number:06d}", "image": f"{size}/{number % IMAGES}.jpg", "labels": NAMES[:classes]}
        for number in range(samples)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Processes: a fixed amount of work for each.


def run_ranks(folder: Path, ranks: int, samples: int) -> dict:
    out, table = folder / f"ranks-{ranks}", write_table(folder, ranks * samples, CLASSES, SIZE)
    options = f"--config shapes --source.kind table --work.unit {UNIT} --work.workers 1"
    line = [sys.executable, *shlex.split(f"{launch(ranks)} -m pseudolabel cams {options}")]
    began, cpu_began = time.time(), cpu_seconds()
    subprocess.run(
        [*line, "--source.path", str(table), "--out", str(out)],
        env={**os.environ, **ONE_THREAD},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds, cpu = time.time() - began, cpu_seconds() - cpu_began
    shards = finished(out, "cams").values()
    first, last = (choose(shard.written for shard in shards) for choose in (min, max))
    at_work = last - min(shard.written - shard.entry.seconds for shard in shards)
    done = sum(shard.entry.samples for shard in shards)
    return {
        "ranks": ranks,
        "samples": done,
        "seconds": seconds,
        "first_shard": first - began,
        "images_per_second": done / at_work,
        "cpu_seconds": cpu,
    }


def cpu_seconds() -> float:
    """Of the processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_table(report: dict) -> str:
    cores, rows = report["machine"]["cores"], []
    one = report["processes"][0]["images_per_second"] / report["processes"][0]["ranks"]
    for row in report["processes"]:
        ranks, gain = row["ranks"], row["images_per_second"] / one
        rows.append(
            [
                *(ranks, f"{row['images_per_second']:.1f}", f"{gain:.2f}", f"{gain / ranks:.0%}"),
                *(f"{gain / min(ranks, cores):.0%}", f"{row['first_shard']:.1f}", f"{row['seconds']:.1f}"),
                f"{row['cpu_seconds'] / ranks:.1f}",
            ]
        )
    heads = ["processes", "images/s", "to one process", "per process", "per core", "first shard, s", "all, s"]
    title = f"{report['settings']['samples']} images per process on {cores} cores"
    return table(title, [*heads, "CPU s each"], rows)


# Memory.


def measure_memory(folder: Path, samples: int, sizes: list[int]) -> list[dict]:
    """Peaks of `cams`, one thing changed at a time."""
    plain = {"samples": samples, "classes": CLASSES, "size": SIZE, "unit": UNIT}
    changes = [
        *({"samples": factor * samples} for factor in (1, 8)),
        *({"classes": classes} for classes in (1, len(NAMES))),
        *({"size": size} for size in sizes),
        {"unit": 4 * UNIT},
    ]
    return [{"changed": next(iter(one)), **plain, **one, **measure_peak(folder, **{**plain, **one})} for one in changes]


def measure_peak(folder: Path, samples: int, classes: int, size: int, unit: int) -> dict:
    experiment, table = load_experiment("shapes"), write_table(folder, samples, classes, size)
    experiment = replace(
        experiment,
        out=str(folder / f"memory-{samples}-{classes}-{size}-{unit}"),
        source=replace(experiment.source, kind="table", path=str(table)),
        work=replace(experiment.work, unit=unit),
    )
    return in_own_process(label_all, experiment)


def label_all(experiment: Experiment) -> dict:
    torch.set_num_threads(1)
    peak, began = Peak(RANK.device), time.perf_counter()
    write_labels(experiment, RANK)
    return {"peak_bytes": peak.bytes(), "seconds": time.perf_counter() - began}


def memory_table(report: dict) -> str:
    settings = ("changed", "samples", "classes", "size", "unit")
    rows = [
        [*(row[name] for name in settings), f"{row['peak_bytes'] / MIB:.0f}", f"{row['seconds']:.1f}"]
        for row in report["memory"]
    ]
    heads = ["changed", "samples", "classes per image", "image side", "unit", "peak, MiB", "s"]
    return table("Peak of cams above imports", heads, rows)


TABLES = {"processes": process_table, "memory": memory_table}
