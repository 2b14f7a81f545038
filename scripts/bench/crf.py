"""DenseCRF by all engines: images per second by image size and number of labels, and whether the masks agree.

    python -m scripts.bench crf                                   # one core each, Shapes scenes
    python -m scripts.bench crf --sample data/voc --json crf.json # images in VOC's layout, and the agreement on each
    python -m scripts.bench crf --device cuda                     # pydensecrf on one core beside torch on the device

Scores are smooth random maps, as many as there are labels. pydensecrf and scipy take one image after the other on one
core, in turn; torch takes all images of a size at once. All are timed in this process. Times on cores are processor
times, which other programs on the machine lengthen less than the clock's.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.config import CrfConfig
from pseudolabel.crf.pydensecrf_engine import mean_field
from pseudolabel.crf.scipy_engine import ScipyMeanField
from pseudolabel.crf.torch_engine import TorchMeanField
from pseudolabel.experiment_file import open_experiment
from pseudolabel.shapes.world import draw_scene

from .measure import Peak, synchronize
from .options import whole_numbers
from .report import MIB, table

COMMON = ("device", "seed")
PRESETS = {"clip-es": CrfConfig(), "shapes": open_experiment("shapes").crf}
LABELS = range(2, 22)
ENGINES = ("pydensecrf", "scipy", "torch")
COARSE = 12  # side of the random maps before they are enlarged


@dataclass(frozen=True)
class Speed:
    """Seconds per image of one size and number of labels; `peak_bytes` is torch's, above the images themselves."""

    preset: str
    height: int
    width: int
    labels: int
    pydensecrf: float
    scipy: float
    torch: float
    peak_bytes: int

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast as pydensecrf each engine is."""
        return {"scipy": self.pydensecrf / self.scipy, "torch": self.pydensecrf / self.torch}


@dataclass(frozen=True)
class Agreement:
    """How far an engine agrees with pydensecrf on all images together; `worst_image` has most pixels that differ."""

    preset: str
    engine: str
    images: int
    pixels: int
    equal_labels: float
    equal_masks: float
    worst_image: float
    largest_difference: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--sizes", type=sizes, default="128x128,375x500", help="heights and widths, with commas")
    parser.add_argument("--labels", type=whole_numbers, default="2,3,5,21", help="with commas, background included")
    parser.add_argument("--images", type=int, default=4, help="per size, and scenes compared without --sample")
    parser.add_argument("--sample", type=Path, help="folder in VOC's layout, whose images are used")
    parser.add_argument("--no-agreement", dest="agreement", action="store_false", help="do not compare the masks")


def measure(args: argparse.Namespace) -> dict:
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    speeds = [
        time_both(preset, args, size, labels, device)
        for preset in PRESETS
        for size in args.sizes
        for labels in args.labels
    ]
    return {
        "speed": [asdict(one) | {"ratios": one.ratios} for one in speeds],
        "agreement": [
            asdict(agree(preset, engine, args, device)) for preset in PRESETS for engine in ("scipy", "torch")
        ]
        if args.agreement
        else [],
    }


def tables(report: dict) -> list[str]:
    return [speed_table(report), *([agreement_table(report)] if report["agreement"] else [])]


def sizes(text: str) -> list[tuple[int, int]]:
    pairs = [tuple(int(side) for side in size.split("x")) for size in text.split(",")]
    return [(height, width) for height, width in pairs]


def load_images(args: argparse.Namespace) -> Iterator[Image.Image]:
    """The sample's images, or Shapes scenes without end."""
    if args.sample is not None:
        for path in sorted((args.sample / "JPEGImages").glob("*.jpg")):
            yield Image.open(path).convert("RGB")
    rng = np.random.default_rng(args.seed)
    while args.sample is None:
        yield draw_scene(rng, 256).image


def draw_scores(rng: np.random.Generator, labels: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth random scores of so many labels: float32 (labels, *size) in [0, 1]."""
    coarse = torch.from_numpy(rng.random((1, labels, COARSE, COARSE), np.float32))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)[0].numpy()


def time_both(preset: str, args: argparse.Namespace, size: tuple[int, int], labels: int, device: torch.device) -> Speed:
    config, rng = PRESETS[preset], np.random.default_rng(args.seed)
    images = [
        np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))
        for image, _ in zip(load_images(args), range(args.images), strict=False)
    ]
    scores = [draw_scores(rng, labels, size) for _ in images]
    crf, on_core = TorchMeanField(config, device), ScipyMeanField(config)
    spent_by = [0.0, 0.0]
    given = [([torch.from_numpy(image)], [torch.from_numpy(own)]) for image, own in zip(images, scores, strict=True)]
    on_core(*given[0])  # the stage has the lattice of positions of a size it has seen
    for image, own, tensors in zip(images, scores, given, strict=True):
        began = time.process_time()
        mean_field(image, own, config)
        spent_by[0] += time.process_time() - began
        began = time.process_time()
        on_core(*tensors)
        spent_by[1] += time.process_time() - began
    on_device = [torch.from_numpy(image).to(device) for image in images]
    scores_on_device = [torch.from_numpy(own).to(device) for own in scores]
    crf(on_device, scores_on_device)
    synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    peak = Peak(device)
    began = clock()
    crf(on_device, scores_on_device)
    synchronize(device)
    spent_by.append(clock() - began)
    pydensecrf, scipy, by_torch = (spent / len(images) for spent in spent_by)
    return Speed(preset, *size, labels, pydensecrf, scipy, by_torch, peak.bytes())


def agree(preset: str, engine: str, args: argparse.Namespace, device: torch.device) -> Agreement:
    """Compare an engine with pydensecrf image by image, at their own size, with 2 to 21 labels in turn."""
    config, rng = PRESETS[preset], np.random.default_rng(args.seed)
    device = device if engine == "torch" else torch.device("cpu")
    crf = TorchMeanField(config, device) if engine == "torch" else ScipyMeanField(config)
    pixels = equal = equal_masks = 0
    worst, largest, count = 1.0, 0.0, 0
    for loaded in load_images(args):
        if args.sample is None and count == args.images:
            break
        image = np.array(loaded)
        scores = draw_scores(rng, LABELS[count % len(LABELS)], image.shape[:2])
        expected = mean_field(image, scores, config)
        [marginals] = crf([torch.from_numpy(image).to(device)], [torch.from_numpy(scores).to(device)])
        found = marginals.cpu().numpy()
        same = expected.argmax(0) == found.argmax(0)
        sure = [marginals.max(0) >= np.float32(config.ignore_below) for marginals in (expected, found)]
        count, pixels, equal = count + 1, pixels + same.size, equal + int(same.sum())
        equal_masks += int(((same & sure[0] & sure[1]) | (~sure[0] & ~sure[1])).sum())
        worst, largest = min(worst, float(same.mean())), max(largest, float(np.abs(expected - found).max()))
    return Agreement(preset, engine, count, pixels, equal / pixels, equal_masks / pixels, worst, largest)


def speed_table(report: dict) -> str:
    device, threads = report["settings"]["device"], report["settings"]["threads"]
    where = f"{threads} thread{'s' * (threads > 1)}" if device == "cpu" else device
    return table(
        f"DenseCRF, images per second: pydensecrf and scipy on one core, torch on {where}",
        ["preset", "size", "labels", *ENGINES, "scipy / pydensecrf", "torch / pydensecrf", "torch's peak, MiB"],
        [
            [
                *(one["preset"], f"{one['height']} x {one['width']}", one["labels"]),
                *(f"{1 / one[engine]:.2f}" for engine in ENGINES),
                *(f"{ratio:.2f}" for ratio in one["ratios"].values()),
                f"{one['peak_bytes'] / MIB:.0f}",
            ]
            for one in report["speed"]
        ],
    )


def agreement_table(report: dict) -> str:
    sample = report["settings"]["sample"]
    images = "Shapes scenes" if sample is None else f"images of {sample.name}"
    return table(
        f"Pixels in which an engine agrees with pydensecrf, in %, on {images}, {LABELS[0]} to {LABELS[-1]} labels",
        ["preset", "engine", "images", "labels", "masks with 255", "labels, worst image", "largest difference of Q"],
        [
            [
                *(one["preset"], one["engine"], one["images"]),
                *(f"{100 * one[share]:.4f}" for share in ("equal_labels", "equal_masks", "worst_image")),
                f"{one['largest_difference']:.1e}",
            ]
            for one in report["agreement"]
        ],
    )
