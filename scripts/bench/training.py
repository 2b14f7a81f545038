"""Iterations per second and memory of DeepLabV2-R101's training, in float32 and bfloat16, and what loading adds.

Trains the shipped VOC recipe from random weights on shards of images as large as VOC's, drawn by the procedural world.
`data` is the time that the model waits for samples: near zero, loading from shards is not what holds it up.

    python scripts/bench/training.py                                    # on a GPU: batch 10, crop 321
    python scripts/bench/training.py --batch 1 --crop 129 --iterations 4 --images 8 --workers 0     # a look on a CPU
"""

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mmcv
import mmengine
import torch
from loading import write_samples
from meter import Peak, machine, synchronize, versions
from mmengine.hooks import Hook
from mmengine.runner import Runner
from report_file import free_file, write_report

from pseudolabel_train.config import prepare

CONFIG = "deeplabv2_r101_voc12_imagenet"
PRECISIONS = {"float32": {}, "bfloat16": {"type": "AmpOptimWrapper", "dtype": "bfloat16"}}
WARM_UP = 3  # iterations before the clock runs: allocation, choice of kernels, the first batch
MIB = 2**20


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
        self.whole: list[float] = []

    def before_train(self, runner: Runner) -> None:
        self._last = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.data.append(time.perf_counter() - self._last)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.whole.append(now - self._last)
        self._last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--crop", type=int, default=321)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", type=free_file, help="file for the figures")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder), args.images, None, seed=0)
        # MMEngine's mixed precision needs a GPU.
        precisions = PRECISIONS if device.type == "cuda" else ["float32"]
        figures = [measure(Path(folder), precision, args, device) for precision in precisions]
    print(table(figures))
    if args.json:
        all_versions = {**versions(), "mmcv": mmcv.__version__, "mmengine": mmengine.__version__}
        report = {"machine": machine(device), "versions": all_versions, "figures": [asdict(one) for one in figures]}
        write_report(args.json, report)


def measure(folder: Path, precision: str, args: argparse.Namespace, device: torch.device) -> Figures:
    peak, watch = Peak(device), Stopwatch(device)
    runner = Runner.from_cfg(configure(folder, precision, args))
    runner.register_hook(watch, priority="LOWEST")
    runner.train()
    whole, data = watch.whole[WARM_UP:], watch.data[WARM_UP:]
    return Figures(precision, len(whole) / sum(whole), sum(data) / sum(whole), peak.bytes())


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


def table(figures: list[Figures]) -> str:
    lines = ["| precision | iterations/s | to float32 | waiting for data | peak, MiB |", "|---|---:|---:|---:|---:|"]
    for one in figures:
        ratio = one.iterations_per_second / figures[0].iterations_per_second
        speed = f"{one.iterations_per_second:.2f} | {ratio:.2f} | {100 * one.data_share:.1f} %"
        lines.append(f"| {one.precision} | {speed} | {one.peak_bytes / MIB:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
