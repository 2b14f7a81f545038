"""Seconds and memory of what methods do after the U-Net: ours against the plain loop and the released way.

    python scripts/bench/methods.py diffseg                    # the attention of Stable Diffusion v1.5, made up
    python scripts/bench/methods.py diffseg --side 16          # a quick look at smaller maps
    python scripts/bench/methods.py diffseg --device cuda --against released

All ways get the same queries and keys and are held to the same masks. Each runs in a process of its own; memory is the
peak above what the queries and keys take.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from meter import Clock, Peak, in_own_process, machine, versions
from report_file import free_file, write_report
from rich.console import Console
from rich.table import Table

from pseudolabel.config import DiffSegConfig
from pseudolabel.methods.diffseg import aggregate, anchor_positions, merge, suppress

# The plain loop is the reference that the tests hold ours against; there is one implementation of it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cams import MIB, WIDTH

from tests.plain import diffseg as plain
from tests.plain.diffsegmenter import Matrix

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


def main() -> None:
    args = parse_arguments()
    task = Task(**{name: value for name, value in vars(args).items() if name in Task.__annotations__})
    results = {way: in_own_process(measure, task, way) for way in ["ours", *args.against]}
    report = diffseg_report(task, results)
    Console(width=WIDTH).print(diffseg_table(task, results, report))
    if args.json:
        write_report(args.json, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = parser.add_subparsers(dest="method", required=True)
    diffseg = methods.add_parser("diffseg", help="aggregation, merging and suppression of DiffSeg")
    diffseg.add_argument("--side", type=int, default=64, help="of the highest resolution")
    diffseg.add_argument("--output", type=int, default=512, help="side of the masks in pixels")
    diffseg.add_argument("--anchors", type=int, default=DiffSegConfig.anchors)
    diffseg.add_argument("--threshold", type=float, default=DiffSegConfig.threshold)
    diffseg.add_argument("--against", nargs="*", choices=OTHERS, default=list(OTHERS))
    diffseg.add_argument("--device", default="cpu")
    diffseg.add_argument("--threads", type=int, default=torch.get_num_threads())
    diffseg.add_argument("--repeat", type=int, default=1, help="runs, of which the fastest counts")
    diffseg.add_argument("--seed", type=int, default=0)
    diffseg.add_argument("--json", type=free_file, help="file for the figures")
    return parser.parse_args()


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


def measure(task: Task, way: str) -> dict:
    """The fastest of the runs with its mask, and the mean CPU time and the peak over all runs.

    Other work on the machine stretches the seconds, and CPU seconds less so.
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
        "machine": machine(device),
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
    """The mean over heads of a layer's whole softmax matrices: (h, w, h, w)."""
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


def diffseg_report(task: Task, results: dict[str, dict]) -> dict[str, object]:
    """The figures, and how many pixels another way labels otherwise than ours."""
    new, others = results["ours"], {way: result for way, result in results.items() if way != "ours"}
    keys = ("seconds", "cpu_seconds", "parts", "peak_bytes")
    figures = {way: {key: result[key] for key in keys} for way, result in results.items()}
    return {
        **figures,
        "segments": len(np.unique(new["labels"])),
        "speedup": {way: old["seconds"] / new["seconds"] for way, old in others.items()},
        "different_pixels": {way: int((old["labels"] != new["labels"]).sum()) for way, old in others.items()},
        "settings": asdict(task),
        "machine": new["machine"],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def diffseg_table(task: Task, results: dict[str, dict], report: dict) -> Table:
    different = ", ".join(f"{count} from the {OTHERS[way]}'s" for way, count in report["different_pixels"].items())
    table = Table(
        title=f"DiffSeg after the U-Net: 1 image, maps of {task.side} x {task.side}, on {task.device}",
        caption=f"{report['segments']} segments; pixels that differ: {different or 'not compared'}",
    )
    table.add_column("")
    for way in results:
        table.add_column(OTHERS.get(way, way), justify="right")
        if way != "ours":
            table.add_column("ratio", justify="right")
    rows = {f"{title}, s": {way: one["parts"][part] for way, one in results.items()} for part, title in PARTS.items()}
    rows["all, s"] = {way: one["seconds"] for way, one in results.items()}
    rows["all, CPU s"] = {way: one["cpu_seconds"] for way, one in results.items()}
    rows["peak, MiB"] = {way: one["peak_bytes"] / MIB for way, one in results.items()}
    for title, values in rows.items():
        cells = [
            [f"{value:.3g}"] + [f"{value / values['ours']:.1f}"] * (way != "ours") for way, value in values.items()
        ]
        table.add_row(title, *(cell for group in cells for cell in group))
    return table


if __name__ == "__main__":
    main()
