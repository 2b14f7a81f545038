"""Score DiffSegmenter's steps and the other methods on standard scenes that the model has never seen.

Prints two tables and writes `scores.json` beside the model. An interval is that of 1,000 draws of the images with
replacement; differences are paired, on the same draws.

    python scripts/score_shapes_standard.py
    python scripts/score_shapes_standard.py --images 40 --out /tmp/scores.json     # a quick look
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pseudolabel.config import CrfConfig, DiffSegmenterConfig, Experiment
from pseudolabel.crf.densecrf import refine
from pseudolabel.diffusion.load import load_model
from pseudolabel.evaluation.bootstrap import bootstrap_mious, interval
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.registry import Context, find_method
from pseudolabel.records import LabelMap, Sample, ScoreMaps
from pseudolabel.score_maps import at_image_size, label_map
from pseudolabel.shapes.difficulty import DIFFICULTIES
from pseudolabel.shapes.world import Scene, draw_scene
from pseudolabel.vocabulary import load_vocabulary

MODEL = "shapes_standard"
TARGET = Path("pseudolabel/shapes/models/shapes-standard/scores.json")
TRAINING_SEED, HELD_OUT_SEED = 0, 20231
CHOOSING = 100  # scenes of the training seed on which a row's threshold is chosen
VOCABULARY = load_vocabulary("shapes")
CROSS, PASS, CHOSEN, MASKS = "cross-attention alone", "+ one pass of self-attention", "+ the chosen affinity", "+ CRF"


@dataclass(frozen=True)
class Row:
    """A row's counts: int64 (images, N + 1, N + 2), and the best mIoU over all thresholds where it has any."""

    counts: np.ndarray
    threshold: float | None = None
    oracle: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--folder", default=MODEL, help="where the model is, if it does not ship yet")
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error("--images: give at least 1")
    experiment = open_experiment(MODEL)
    model = load_model(replace(experiment.model, name=arguments.folder), torch.device("cpu"))
    context = Context(model.device, VOCABULARY, model, batch=32)
    held_out = [scene(HELD_OUT_SEED, 1, number) for number in range(1, arguments.images + 1)]
    choosing = [scene(TRAINING_SEED, number) for number in range(CHOOSING)]
    rows: dict[str, Row] = {}
    for name, (method, settings) in score_map_rows(experiment).items():
        rows[name], maps = score_maps(context, method, settings, choosing, held_out)
        if name == CHOSEN:
            rows[MASKS] = Row(count(held_out, refined(held_out, maps, experiment.crf)))
    for name, (method, settings) in label_rows(experiment).items():
        rows[name] = Row(count(held_out, label_maps(context, method, settings, held_out)))
    report = summarise(rows)
    show(report)
    arguments.out.write_text(json.dumps({"data": data(arguments.images), **report}, indent=2) + "\n")


def scene(*seed: int) -> Scene:
    return draw_scene(np.random.default_rng(seed), difficulty=DIFFICULTIES["standard"])


def data(images: int) -> dict[str, Any]:
    return {"source": "shapes", "difficulty": "standard", "split": "val", "seed": HELD_OUT_SEED, "images": images}


def score_map_rows(experiment: Experiment) -> dict[str, tuple[str, Any]]:
    """Methods that give score maps, with true classes."""
    chosen, plain = experiment.diffsegmenter, DiffSegmenterConfig()
    once = replace(chosen, affinity=plain.affinity, iterations=1)
    return {
        CROSS: ("diffsegmenter", replace(once, self_attention="none")),
        PASS: ("diffsegmenter", once),
        CHOSEN: ("diffsegmenter", chosen),
        "ELBO": ("elbo", experiment.elbo),
    }


def label_rows(experiment: Experiment) -> dict[str, tuple[str, Any]]:
    """Methods that give label maps: those without names are matched to true labels image by image."""
    diffseg = experiment.diffseg
    return {
        "DiffSeg, matched": ("diffseg", diffseg),
        "K-means, matched": ("diffseg", replace(diffseg, grouping="kmeans", clusters=0)),
        "DiffCut, matched": ("diffseg", replace(diffseg, grouping="ncut", timestep=50)),
        "FreeSeg-Diff": ("freesegdiff", experiment.freesegdiff),
    }


def label_maps(context: Context, method: str, settings: Any, scenes: Sequence[Scene]) -> list[np.ndarray]:
    found = [one.labels for one in predict(context, method, settings, scenes)]
    if find_method(method).kind(settings) == "masks":
        return found
    matching = Hungarian.empty(len(VOCABULARY), has_background=True)
    return [matching.add(one.labels, own)[1] for one, own in zip(scenes, found, strict=True)]


def predict(context: Context, method: str, settings: Any, scenes: Sequence[Scene]) -> Iterator[Any]:
    predictor = find_method(method).build(context, settings)
    samples = [Sample(f"scene_{number:04d}", one.image, one.classes) for number, one in enumerate(scenes)]
    for sample, result in track(predictor(samples), method, total=len(samples), transient=True):
        if not isinstance(result, ScoreMaps | LabelMap):
            raise SystemExit(f"{method}, {sample.key}: {result}")
        yield result


def score_maps(
    context: Context, method: str, settings: Any, choosing: Sequence[Scene], held_out: Sequence[Scene]
) -> tuple[Row, list[np.ndarray]]:
    """The row of a method with the threshold that is best on the training seed, and its held-out score maps."""
    known, found = (
        [at_image_size(one.maps, one.size) for one in predict(context, method, settings, scenes)]
        for scenes in (choosing, held_out)
    )
    threshold = sweep(choosing, known).oracle()[1]
    labels = [label_map(maps, one.classes, threshold) for one, maps in zip(held_out, found, strict=True)]
    return Row(count(held_out, labels), threshold, sweep(held_out, found).oracle()[0]), found


def sweep(scenes: Sequence[Scene], maps: Sequence[np.ndarray]) -> ThresholdSweep:
    found = ThresholdSweep.empty(len(VOCABULARY))
    for one, own in zip(scenes, maps, strict=True):
        found.add(one.labels, own, one.classes)
    return found


def count(scenes: Sequence[Scene], labels: Sequence[np.ndarray]) -> np.ndarray:
    counts = []
    for one, own in zip(scenes, labels, strict=True):
        confusion = Confusion.empty(len(VOCABULARY))
        confusion.add(one.labels, own)
        counts.append(confusion.counts)
    return np.stack(counts)


def refined(scenes: Sequence[Scene], maps: Sequence[np.ndarray], crf: CrfConfig) -> list[np.ndarray]:
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(refine_scene, scenes, maps, itertools.repeat(crf), chunksize=8))


def refine_scene(one: Scene, maps: np.ndarray, crf: CrfConfig) -> np.ndarray:
    return refine(np.asarray(one.image), maps, one.classes, crf)[0]


def summarise(rows: dict[str, Row]) -> dict[str, Any]:
    """Mean IoU with its interval for every row, and what each step gains."""
    draws: dict[str, np.ndarray] = {name: bootstrap_mious(row.counts) for name, row in rows.items()}
    mious = {name: Confusion(row.counts.sum(0)).miou for name, row in rows.items()}
    steps = [(CROSS, PASS), (PASS, CHOSEN), (CROSS, CHOSEN), (CHOSEN, MASKS)]
    return {
        "rows": [
            {
                "row": name,
                "miou": mious[name],
                "interval": interval(draws[name]),
                "threshold": row.threshold,
                "oracle_miou": row.oracle,
            }
            for name, row in rows.items()
        ],
        "gains": [
            {"from": a, "to": b, "gain": mious[b] - mious[a], "interval": interval(draws[b] - draws[a])}
            for a, b in steps
        ],
    }


def show(report: dict[str, Any]) -> None:
    console, percent = Console(width=120), partial("{:.1f}".format)
    table = Table("", "mIoU", "95 % interval", "threshold", "oracle")
    for row in report["rows"]:
        low, high = (percent(100 * value) for value in row["interval"])
        oracle = "" if row["oracle_miou"] is None else percent(100 * row["oracle_miou"])
        table.add_row(row["row"], percent(100 * row["miou"]), f"{low} to {high}", str(row["threshold"] or ""), oracle)
    console.print(table)
    gains = Table("from", "to", "gain", "95 % interval")
    for gain in report["gains"]:
        low, high = (percent(100 * value) for value in gain["interval"])
        gains.add_row(gain["from"], gain["to"], percent(100 * gain["gain"]), f"{low} to {high}")
    console.print(gains)


if __name__ == "__main__":
    main()
