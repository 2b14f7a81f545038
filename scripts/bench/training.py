"""Iterations per second and memory of DeepLabV2-R101's training, in float32 and bfloat16, and what loading adds.

    python -m scripts.bench training                                    # on a GPU: batch 10, crop 321
    python -m scripts.bench training --batch 1 --crop 129 --iterations 4 --images 8 --workers 0     # small, on a CPU

Trains the shipped VOC recipe from random weights on shards of images as large as VOC's, drawn by the procedural world.
`data` is the time that the model waits for samples: near zero, loading from shards is not the bottleneck.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pseudolabel_train.config import prepare

from .loading import write_samples
from .measure import Peak, synchronize
from .report import MIB, table

COMMON = ()
CONFIG = "deeplabv2_r101_voc12_imagenet"
PRECISIONS = {"float32": {}, "bfloat16": {"type": "AmpOptimWrapper", "dtype": "bfloat16"}}
WARM_UP = 3  # iterations before the clock runs: allocation, choice of kernels, the first batch


@dataclass(frozen=True)
class Figures:
    """Means over the timed iterations; the peak is above what was held before the model was built."""

    precision: str
    iterations_per_second: float
    data_share: float
    peak_bytes: int


class Stopwatch(Hook):
    """When the batch was there and when the iteration had ended, from the end of the one before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.data: list[float] = []
        self.complete: list[float] = []

    def before_train(self, runner: Runner) -> None:
        self._last = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.data.append(time.perf_counter() - self._last)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.complete.append(now - self._last)
        self._last = now


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--crop", type=int, default=321)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)


def measure(args: argparse.Namespace) -> dict:
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder), args.images, None, seed=0)
        # MMEngine's mixed precision needs a GPU.
        precisions = PRECISIONS if device.type == "cuda" else ["float32"]
        return {"figures": [asdict(train(Path(folder), precision, args, device)) for precision in precisions]}


def train(folder: Path, precision: str, args: argparse.Namespace, device: torch.device) -> Figures:
    peak, watch = Peak(device), Stopwatch(device)
    runner = Runner.from_cfg(configure(folder, precision, args))
    runner.register_hook(watch, priority="LOWEST")
    runner.train()
    complete, data = watch.complete[WARM_UP:], watch.data[WARM_UP:]
    return Figures(precision, len(complete) / sum(complete), sum(data) / sum(complete), peak.bytes())


def configure(folder: Path, precision: str, args: argparse.Namespace):
    cfg = prepare(CONFIG, folder / precision, [])
    crop = (args.crop, args.crop)
    cfg.model.backbone.init_cfg = None
    cfg.model.data_preprocessor.size = crop
    loader = cfg.train_dataloader
    loader.batch_size, loader.num_workers, loader.persistent_workers = args.batch, args.workers, args.workers > 0
    loader.dataset.shards, loader.dataset.vocabulary = str(folder / "masks"), "shapes"
    next(step for step in loader.dataset.pipeline if step["type"] == "RandomCrop")["crop_size"] = crop
    cfg.optim_wrapper.update(PRECISIONS[precision])
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": WARM_UP + args.iterations}
    for name in ("val_dataloader", "val_evaluator", "val_cfg", "test_dataloader", "test_evaluator", "test_cfg"):
        cfg.pop(name)
    cfg.default_hooks.checkpoint = None
    cfg.visualizer.vis_backends = []
    return cfg


def tables(report: dict) -> list[str]:
    figures = report["figures"]
    rows = [
        [
            *(one["precision"], f"{one['iterations_per_second']:.2f}"),
            f"{one['iterations_per_second'] / figures[0]['iterations_per_second']:.2f}",
            *(f"{100 * one['data_share']:.1f} %", f"{one['peak_bytes'] / MIB:.0f}"),
        ]
        for one in figures
    ]
    return [table("Training", ["precision", "iterations/s", "to float32", "waiting for data", "peak, MiB"], rows)]
