"""Images per second that training can load: pseudo-mask shards beside loose files of the same samples.

    python -m scripts.bench loading                                 # 500 x 375 pixels from the procedural world
    python -m scripts.bench loading --voc VOCdevkit/VOC2012         # real images with their masks
    python -m scripts.bench loading --images 40 --batch 4 --workers 0 --json loading.json    # a small run

All read one epoch from a warm page cache, so that the software is compared and not a disk. Every measurement runs in a
process of its own, the readers take turns, and of several rounds the best counts.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import pseudolabel_train.register  # noqa: F401  (what the configs below name)
from pseudolabel.io.tar import write_tar
from pseudolabel.records import LabelMap
from pseudolabel.runtime.batching import batched
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.index import load_index
from pseudolabel.shards.sample import JPEG_QUALITY, encode_mask

from .measure import Peak
from .options import whole_numbers
from .report import MIB, table

COMMON = ("seed",)
READERS = ("files", "ShardDataset")
PIPELINES = ("decode", "train")
SIZE = (500, 375)  # width and height that most VOC images have
SHARD = 256
FILES = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
SHARDS = [{"type": "LoadShardSample"}]
AUGMENT = [
    {"type": "RandomResize", "scale": SIZE, "ratio_range": (0.5, 1.5), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (321, 321)},
    {"type": "RandomFlip", "prob": 0.5},
]
PACK = [{"type": "PackSegInputs"}]


@dataclass(frozen=True)
class Figures:
    """Of one epoch.

    Attributes:
        reader, pipeline, workers: what was measured.
        images_per_second: after the first batch.
        cpu_seconds: per image, of the process and its workers; other work on the machine changes it less.
        first_batch: seconds until the first batch, from making the data set on.
        peak_bytes: resident set of the process above what it held before.
        worker_bytes: largest resident set of a worker, with what it shares with the process.
    """

    reader: str
    pipeline: str
    workers: int
    images_per_second: float
    cpu_seconds: float
    first_batch: float
    peak_bytes: int
    worker_bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--voc", type=Path, help="folder with JPEGImages and SegmentationClass")
    parser.add_argument("--images", type=int, default=400, help="at most so many")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--workers", type=whole_numbers, default=[0, 1, 2], help="with commas")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the best counts")


def measure(args: argparse.Namespace) -> dict:
    with TemporaryDirectory() as name:
        folder = Path(name)
        count = write_samples(folder, args.images, args.voc, args.seed)
        indexing = time_indexing(folder)
        warm_up(folder)
        figures = [
            asdict(best)
            for pipeline in PIPELINES
            for workers in args.workers
            for best in measure_in_turn(folder, pipeline, workers, args)
        ]
    return {"images": count, "indexing_seconds": indexing, "figures": figures}


# The same samples, as files and as shards.


def write_samples(folder: Path, count: int, voc: Path | None, seed: int) -> int:
    samples = voc_samples(voc) if voc else (draw_sample(seed, number) for number in range(count))
    for kind in ("images", "labels", "masks"):
        (folder / kind).mkdir()
    written = 0
    for number, shard in enumerate(batched(islice(samples, count), SHARD)):
        with (folder / "masks" / f"masks-{number:06d}.tar").open("wb") as file:
            write_tar(file, [(key, {"jpg": image, "png": mask, "json": b"{}"}) for key, image, mask in shard])
        for key, image, mask in shard:
            (folder / "images" / f"{key}.jpg").write_bytes(image)
            (folder / "labels" / f"{key}.png").write_bytes(mask)
        written += len(shard)
    return written


def voc_samples(path: Path):
    for mask in sorted((path / "SegmentationClass").glob("*.png")):
        yield mask.stem, (path / "JPEGImages" / f"{mask.stem}.jpg").read_bytes(), mask.read_bytes()


def draw_sample(seed: int, number: int) -> tuple[str, bytes, bytes]:
    width, height = SIZE
    scene = draw_scene(np.random.default_rng([seed, number]), size=width)
    key, buffer = f"{number:06d}", io.BytesIO()
    scene.image.crop((0, 0, width, height)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    labels = LabelMap(key, scene.labels[:height])
    return key, buffer.getvalue(), encode_mask(b"", labels, {})["png"]


def time_indexing(folder: Path) -> float:
    started = time.perf_counter()
    for path in (folder / "masks").glob("*.tar"):
        load_index(str(path))
    return time.perf_counter() - started


def warm_up(folder: Path) -> None:
    """Import what the readers import on their first use; the processes that measure are forked after that."""
    for reader in READERS:
        for pipeline in PIPELINES:
            next(iter(make_loader(folder, reader, pipeline, workers=0, batch=1)))


# One epoch.


def measure_in_turn(folder: Path, pipeline: str, workers: int, args: argparse.Namespace) -> list[Figures]:
    rounds = [
        [in_own_process(read_epoch, folder, reader, pipeline, workers, args.batch) for reader in READERS]
        for _ in range(args.repeat)
    ]
    return [best_of([one[index] for one in rounds]) for index in range(len(READERS))]


def best_of(rounds: list[Figures]) -> Figures:
    first = min(one.first_batch for one in rounds)
    cpu = min(one.cpu_seconds for one in rounds)
    best = max(rounds, key=lambda one: one.images_per_second)
    return Figures(**{**asdict(best), "first_batch": first, "cpu_seconds": cpu})


def in_own_process(function: Callable, *arguments: object) -> Figures:
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:  # forked: the imports are done
        return pool.submit(function, *arguments).result()


def read_epoch(folder: Path, reader: str, pipeline: str, workers: int, batch: int) -> Figures:
    torch.set_num_threads(1)
    peak, cpu_before, started = Peak(torch.device("cpu")), cpu_seconds(), time.perf_counter()
    loader = make_loader(folder, reader, pipeline, workers, batch)
    batches = sum(counts(folder)) // batch
    iterator = islice(loader, batches)
    images = len(next(iterator)["inputs"])
    first_batch = time.perf_counter() - started
    rest = sum(len(one["inputs"]) for one in iterator)
    seconds = time.perf_counter() - started - first_batch
    peak_bytes = peak.bytes()
    del iterator, loader  # ends the workers, whose time and memory count from then on
    worker_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 if workers else 0
    cpu = (cpu_seconds() - cpu_before) / (images + rest)
    return Figures(reader, pipeline, workers, rest / seconds, cpu, first_batch, peak_bytes, worker_bytes)


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def make_loader(folder: Path, reader: str, pipeline: str, workers: int, batch: int) -> DataLoader:
    load = FILES if reader == "files" else SHARDS
    steps = [*load, *(AUGMENT if pipeline == "train" else []), *PACK]
    masks = {"shards": str(folder / "masks"), "vocabulary": "voc", "pipeline": steps}
    prefix = {"img_path": str(folder / "images"), "seg_map_path": str(folder / "labels")}
    dataset = {
        "files": {"type": "mmseg.BaseSegDataset", "data_prefix": prefix, "pipeline": steps},
        "ShardDataset": {"type": "mmseg.ShardDataset", **masks},
    }[reader]
    sampler = {"type": "InfiniteSampler", "shuffle": True}
    config = {"dataset": dataset, "sampler": sampler, "batch_size": batch, "num_workers": workers}
    with DefaultScope.overwrite_default_scope("mmseg"):
        return Runner.build_dataloader(config, seed=0)


def counts(folder: Path) -> list[int]:
    return [len(load_index(str(path))) for path in sorted((folder / "masks").glob("*.tar"))]


def tables(report: dict) -> list[str]:
    figures, rows = report["figures"], []
    files = {(one["pipeline"], one["workers"]): one for one in figures if one["reader"] == "files"}
    for one in figures:
        ratio = one["images_per_second"] / files[one["pipeline"], one["workers"]]["images_per_second"]
        rows.append(
            [
                *(one["pipeline"], one["workers"], one["reader"], f"{one['images_per_second']:.0f}", f"{ratio:.2f}"),
                *(f"{1e3 * one['cpu_seconds']:.2f}", f"{one['first_batch']:.2f}", f"{one['peak_bytes'] / MIB:.0f}"),
                f"{one['worker_bytes'] / MIB:.0f}" if one["workers"] else "",
            ]
        )
    heads = ["pipeline", "workers", "reader", "images/s", "to files", "CPU ms/image", "first batch, s"]
    heads += ["peak above start, MiB", "largest worker, MiB"]
    seconds = 1e6 * report["indexing_seconds"] / report["images"]
    return [table("One epoch", heads, rows, f"Indexing the shards, which is done once: {seconds:.0f} us per image.")]
