"""Seconds and memory of what DiffSeg does after the U-Net: ours beside the plain loop and the way of the released code.

    python -m scripts.bench methods                    # attention as Stable Diffusion v1.5's, made up
    python -m scripts.bench methods --side 16          # smaller maps
    python -m scripts.bench methods --device cuda --against released

All get the same queries and keys and must give the same masks. Each runs in a process of its own; memory is the peak
above what the queries and keys take.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch

from pseudolabel.config import DiffSegConfig
from pseudolabel.methods.diffseg import aggregate, anchor_positions, merge, suppress
from tests.plain import diffseg as plain  # the reference that the tests compare ours with
from tests.plain.diffsegmenter import Matrix

from .measure import Clock, Peak, in_own_process
from .report import MIB, table

COMMON = ("device", "threads", "repeat", "seed")
OTHERS = {"released": "released way", "loop": "plain loop"}
PARTS = {"aggregation": "softmax, aggregation", "merging": "merging", "suppression": "suppression"}
# Side over the highest resolution's, layers, and width of a head, as in the U-Net of Stable Diffusion v1.5.
LEVELS = ((1, 5, 40), (2, 5, 80), (4, 5, 160), (8, 1, 160))
HEADS = 8
REGIONS = 9
RELEASED_BLOCK = 16  # anchors that the released code compares at once


@dataclass(frozen=True)
class Task:
    """What every way does: one image."""

    side: int
    output: int
    anchors: int
    threshold: float
    device: str
    threads: int
    repeat: int
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=64, help="of the highest resolution")
    parser.add_argument("--output", type=int, default=512, help="side of the masks in pixels")
    parser.add_argument("--anchors", type=int, default=DiffSegConfig.anchors)
    parser.add_argument("--threshold", type=float, default=DiffSegConfig.threshold)
    parser.add_argument("--against", nargs="*", choices=OTHERS, default=list(OTHERS))


def measure(args: argparse.Namespace) -> dict:
    """The figures, and how many pixels the others label differently from ours."""
    task = Task(**{name: value for name, value in vars(args).items() if name in Task.__annotations__})
    results = {way: in_own_process(measure_one, task, way) for way in ["ours", *args.against]}
    labels = {way: result.pop("labels") for way, result in results.items()}
    return {
        **results,
        "segments": len(np.unique(labels["ours"])),
        "speedup": {way: results[way]["seconds"] / results["ours"]["seconds"] for way in args.against},
        "different_pixels": {way: int((labels[way] != labels["ours"]).sum()) for way in args.against},
    }


Levels = list[list[tuple[torch.Tensor, torch.Tensor]]]


def make_up(task: Task) -> Levels:
    """Queries and keys of attention that stays within regions of the image, by resolution, with some noise."""
    rng = np.random.default_rng(task.seed)
    centres = rng.uniform(size=(REGIONS, 2))
    levels: Levels = []
    for share, layers, width in LEVELS:
        side = task.side // share
        line = (np.arange(side) + 0.5) / side
        places = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
        region = ((places[:, None] - centres) ** 2).sum(-1).argmin(1)
        features = np.zeros((side**2, width))
        features[np.arange(side**2), region] = 3.0
        shape = (layers, 2, 1, HEADS, side**2, width)
        values = (features + 0.4 * rng.normal(size=shape)) * width**0.25
        levels.append([tuple(torch.from_numpy(pair).float().to(task.device)) for pair in values])
    return levels


def measure_one(task: Task, way: str) -> dict:
    """The fastest of the runs with its mask, and the mean CPU time and the peak over all runs.

    Other work on the machine changes CPU seconds less than seconds.
    """
    torch.set_num_threads(task.threads)
    device, levels = torch.device(task.device), make_up(task)
    config = DiffSegConfig(anchors=task.anchors, threshold=task.threshold)
    peak, cpu_seconds = Peak(device), time.process_time()
    seconds, parts, labels = min((run(way, levels, config, task) for _ in range(task.repeat)), key=lambda one: one[0])
    return {
        "seconds": seconds,
        "cpu_seconds": (time.process_time() - cpu_seconds) / task.repeat,
        "parts": parts,
        "peak_bytes": peak.bytes(),
        "labels": labels,
    }


@torch.inference_mode()
def run(way: str, levels: Levels, config: DiffSegConfig, task: Task) -> tuple[float, dict[str, float], np.ndarray]:
    """Seconds in all and by part, and the labels."""
    clock, size = Clock(torch.device(task.device)), (task.output, task.output)
    started = time.perf_counter()
    if way == "ours":
        with clock.part("aggregation"):
            maps = aggregate(levels, config.weights)
        with clock.part("merging"):
            (proposals,) = merge(maps, config)
        with clock.part("suppression"):
            labels = suppress(proposals, size).cpu().numpy()
    else:
        with clock.part("aggregation"):
            tensor = plain.aggregate(
                [attention(query, key) for level in levels for query, key in level], config.weights
            )
        with clock.part("merging"):
            merged = plain.proposals(tensor, config) if way == "loop" else in_blocks(tensor, config, task.device)
        with clock.part("suppression"):
            labels = plain.segment(merged, size)
    return time.perf_counter() - started, clock.seconds, labels


def attention(query: torch.Tensor, key: torch.Tensor) -> np.ndarray:
    """The mean over heads of a layer's complete softmax matrices: (h, w, h, w)."""
    probabilities = (query[0] @ key[0].mT / query.shape[-1] ** 0.5).softmax(-1)
    return plain.tensor_4d(Matrix(False, 0, probabilities))


def in_blocks(tensor: np.ndarray, config: DiffSegConfig, device: str) -> list[np.ndarray]:
    """Merging as released: all values of some anchors and all maps at once, then each proposal and all others."""
    side = len(tensor)
    exact = torch.from_numpy(tensor.reshape(side**2, side**2)).to(device)
    maps = exact.float()
    anchors = maps[anchor_positions(side, config.anchors).to(device)]
    near = torch.cat([elementwise(block[:, None], maps) < config.threshold for block in anchors.split(RELEASED_BLOCK)])
    merged = (near.double() @ exact) / near.sum(1, keepdim=True)
    for _ in range(config.iterations - 1):
        matched, rows = torch.zeros(len(merged), dtype=torch.bool, device=device), []
        for number, seed in enumerate(merged):
            if not matched[number]:
                alike = elementwise(seed, merged) < config.threshold
                matched |= alike
                rows.append(merged[alike].mean(0))
        merged = torch.stack(rows)
    return list(merged.cpu().numpy().reshape(-1, side, side))


def elementwise(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Symmetric KL divergence over the last axis."""
    difference = one.clamp(min=plain.FLOOR).log() - other.clamp(min=plain.FLOOR).log()
    return ((one * difference).sum(-1) - (other * difference).sum(-1)) / 2


def tables(report: dict) -> list[str]:
    settings = report["settings"]
    ways = ["ours", *settings["against"]]
    heads = [head for way in ways for head in ([way] if way == "ours" else [OTHERS[way], "ratio"])]
    values = {f"{title}, s": [report[way]["parts"][part] for way in ways] for part, title in PARTS.items()}
    values["all, s"] = [report[way]["seconds"] for way in ways]
    values["all, CPU s"] = [report[way]["cpu_seconds"] for way in ways]
    values["peak, MiB"] = [report[way]["peak_bytes"] / MIB for way in ways]
    rows = []
    for title, (ours, *others) in values.items():
        cells = [text for value in others for text in (f"{value:.3g}", f"{value / ours:.1f}" if ours else "")]
        rows.append([title, f"{ours:.3g}", *cells])
    different = ", ".join(f"{count} from the {OTHERS[way]}'s" for way, count in report["different_pixels"].items())
    return [
        table(
            f"DiffSeg after the U-Net: 1 image, maps of {settings['side']} x {settings['side']}, {settings['device']}",
            ["", *heads],
            rows,
            f"{report['segments']} segments; pixels that differ: {different or 'not compared'}.",
        )
    ]
