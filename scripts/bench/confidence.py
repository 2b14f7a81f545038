"""How well an image's confidence ranks its mask: against the mask's own mIoU, on Shapes that no setting has seen.

    python -m scripts.bench confidence --images 400 --json confidence.json

Scenes go through `generate`. An image's mIoU is the mean IoU over the labels in its mask or in the truth, ignored
pixels left out. Other ways to one number per image are shown beside ours; all come from `scores.csv`.
"""

import argparse
import csv
import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.shapes.dataset import write_shapes
from pseudolabel.shards.dataset import ShardDataset
from pseudolabel.shards.scores import SCORES

from .commands import run_on_shapes
from .report import table

COMMON = ("model", "device", "threads", "seed")
HELD_OUT = 20231  # scripts/score_shapes.py's

Rows = Sequence[dict[str, str]]
WAYS: dict[str, Callable[[Rows], float]] = {
    "mean over background and the labels (ours)": lambda rows: float(rows[0]["image_confidence"]),
    "smallest of background and the labels": lambda rows: min(map(_confidence, rows)),
    "mean over the pixels": lambda rows: float(np.average([*map(_confidence, rows)], weights=[*map(_pixels, rows)])),
    "fewest labels": lambda rows: -len(rows),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(model="shapes", seed=HELD_OUT)
    parser.add_argument("--images", type=int, default=400)


def measure(args: argparse.Namespace) -> dict:
    with TemporaryDirectory() as data, TemporaryDirectory() as out:
        write_shapes(Path(data), train=0, val=args.images, seed=args.seed)
        options = {"source.path": data, "source.split": "val"}
        run_on_shapes("generate", args.model, out, args.device, args.threads, options)
        scores = read_scores(Path(out) / "masks" / SCORES)
        quality = dict(score(Path(out) / "masks", Path(data) / "SegmentationClass"))
    keys = sorted(quality)
    return {"ways": [compare(name, [way(scores[key]) for key in keys], keys, quality) for name, way in WAYS.items()]}


def read_scores(path: Path) -> dict[str, Rows]:
    with path.open(newline="") as file:
        return {key: list(rows) for key, rows in itertools.groupby(csv.DictReader(file), itemgetter("key"))}


def score(masks: Path, truth: Path):
    """Key and mIoU of every mask."""
    shards = ShardDataset(str(masks))
    for item in map(shards.__getitem__, range(len(shards))):
        confusion = Confusion.empty(len(shards.names) - 1)
        confusion.add(np.asarray(Image.open(truth / f"{item['key']}.png")), item["mask"].numpy())
        yield item["key"], confusion.miou_covered


def compare(name: str, values: list[float], keys: list[str], quality: dict[str, float]) -> dict:
    mious = np.array([quality[key] for key in keys])
    order = np.argsort(-np.array(values), kind="stable")
    half = len(keys) // 2
    return {
        "way": name,
        "spearman": float(spearmanr(values, mious)[0]),
        "upper_half": float(mious[order[:half]].mean()),
        "lower_half": float(mious[order[half:]].mean()),
        "worst_tenth": float(mious[order[-max(1, len(keys) // 10) :]].mean()),
    }


def _confidence(row: dict[str, str]) -> float:
    return float(row["confidence"] or 0)


def _pixels(row: dict[str, str]) -> int:
    return int(row["area"]) or 1


def tables(report: dict) -> list[str]:
    heads = ["confidence", "Spearman's rho with mIoU", "mIoU, surer half", "other half", "least sure tenth"]
    columns = ("upper_half", "lower_half", "worst_tenth")
    rows = [
        [way["way"], f"{way['spearman']:.3f}", *(f"{100 * way[column]:.1f}" for column in columns)]
        for way in report["ways"]
    ]
    return [table(f"Confidence and mIoU of {report['settings']['images']} scenes", heads, rows)]
