"""Score the shipped CLIP, captioner and noun finder on images they have never seen, and write the scores beside them.

The filter's threshold is chosen on scenes of the training seed that training did not draw.

    python scripts/score_shapes_text.py
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from score_shapes import IMAGES, SEED

from pseudolabel.config import CaptionConfig, FilterConfig, SourceConfig
from pseudolabel.evaluation.label_scores import LabelScores
from pseudolabel.runtime.batching import batched
from pseudolabel.shapes.dataset import CAPTION_FILE, write_shapes
from pseudolabel.shapes.world import BACKGROUNDS, draw_scene
from pseudolabel.sources.source import open_source
from pseudolabel.text.category_filter import CategoryFilter
from pseudolabel.text.class_rules import Classes, classes_of_image
from pseudolabel.text.clip import ClipScorer
from pseudolabel.vocabulary import load_vocabulary

MODELS = Path("pseudolabel/shapes/models/shapes-text")
SHAPES = load_vocabulary("shapes")
CHOICE = range(6000, 6300)  # numbers of the scenes of the training seed that the threshold is chosen on
THRESHOLDS = np.arange(0.3, 1, 0.01)
CELLS = 16  # side of the maps whose clusters regions are made of
BATCH = 50


@dataclass(frozen=True)
class LabelledImage:
    """An RGB image with its mask, its classes and the background it was drawn on."""

    image: Image.Image
    labels: np.ndarray
    classes: Classes
    background: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the three models")
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    folder = arguments.models
    clip = ClipScorer(str(folder / "clip"), torch.device("cpu"), "--models")
    threshold, score = choose_threshold(clip)
    scenes = read_images(arguments.images)
    scores = {
        "data": {"source": "shapes", "split": "val", "seed": SEED, "images": len(scenes)},
        "image_threshold": {"chosen_on": "Shapes, training seed 0", "threshold": threshold, "f1": score},
        **score_filter(folder, scenes, threshold),
        "region_naming": {
            "exact": score_naming(clip, scenes, cells=0),
            f"of {CELLS} x {CELLS} cells": score_naming(clip, scenes, CELLS),
        },
        "bytes": {part.name: size(part) for part in sorted(folder.iterdir()) if part.is_dir()},
    }
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


def read_images(images: int) -> list[LabelledImage]:
    """What `pseudolabel shapes --train 0 --val IMAGES --seed 20231` writes."""
    with TemporaryDirectory() as folder:
        write_shapes(Path(folder), 0, images, SEED)
        source = open_source(SourceConfig(path=folder, split="val"), SHAPES)
        lines = (Path(folder) / CAPTION_FILE).read_text().splitlines()
        background = {row["key"]: row["caption"].split()[-1] for row in map(json.loads, lines)}
        samples = [(source.read(entry), source.ground_truth(entry)) for entry in source.entries]
        return [
            LabelledImage(sample.image, truth.labels, sample.classes, background[sample.key])
            for sample, truth in samples
            if truth is not None
        ]


def choose_threshold(clip: ClipScorer) -> tuple[float, float]:
    """The share of the largest similarity with the best F1, and that."""
    scenes = [draw_scene(np.random.default_rng([0, number])) for number in CHOICE]
    truth = [scene.classes for scene in scenes]
    sentences = [FilterConfig().template.format(entry.prompt) for entry in SHAPES.classes]
    images = [scene.image for scene in scenes]
    cosines = torch.cat([clip.similarities(part, sentences) for part in batched(images, BATCH)])

    def f1(threshold: float) -> float:
        return label_scores([classes_of_image(row, "relative", threshold) for row in cosines], truth)["f1"]

    scores = np.array([f1(threshold) for threshold in THRESHOLDS])
    best = np.flatnonzero(scores == scores.max())
    middle = best[len(best) // 2]
    return round(float(THRESHOLDS[middle]), 2), float(scores[middle])


def score_filter(folder: Path, scenes: list[LabelledImage], threshold: float) -> dict:
    config = FilterConfig(clip=str(folder / "clip"), spacy=str(folder / "nouns"), image_threshold=threshold)
    guess = CategoryFilter(config, CaptionConfig(model=str(folder / "captioner")), torch.device("cpu"))
    guesses = [found for part in batched([p.image for p in scenes], BATCH) for found in guess(part, SHAPES)]
    truth = [scene.classes for scene in scenes]
    said = {
        prefix: [in_words(found.captions[place]) for found in guesses] for place, prefix in enumerate(config.prefixes)
    }
    return {
        "filter": {
            "image": label_scores([found.by_image for found in guesses], truth),
            "nouns": label_scores([found.by_nouns for found in guesses], truth),
            "union": label_scores([found.classes for found in guesses], truth),
        },
        "caption_words": {f"lead '{prefix}'": label_scores(classes, truth) for prefix, classes in said.items()},
    }


def in_words(caption: str) -> Classes:
    return tuple(index for index, name in enumerate(SHAPES.names) if name in caption.split())


def label_scores(predicted: Sequence[Classes], truth: Sequence[Classes]) -> dict[str, float]:
    micro = LabelScores.count(zip(predicted, truth, strict=True), len(SHAPES)).micro
    return dict(zip(("precision", "recall", "f1"), micro, strict=True))


def score_naming(clip: ClipScorer, scenes: list[LabelledImage], cells: int) -> dict[str, float]:
    """Accuracy of the nearest word to regions shown on black, as FreeSeg-Diff names them.

    Args:
        clip: names the regions.
        scenes: with one region of each class and one of background each.
        cells: 0 takes regions as they are; else cells that are at least half a region's, of so many a side.
    """
    words = [*(entry.prompt for entry in SHAPES.classes), *BACKGROUNDS]
    sentences = [f"a photo of a {word}" for word in words]
    regions, truth = zip(*(pair for scene in scenes for pair in named_regions(scene, words, cells)), strict=True)
    nearest = torch.cat([clip.similarities(part, sentences).argmax(1) for part in batched(regions, BATCH)]).numpy()
    right, is_object = nearest == np.array(truth), np.array(truth) < len(SHAPES)
    return {
        "regions": len(truth),
        "objects": float(right[is_object].mean()),
        "background_words": float(right[~is_object].mean()),
        "background_by_any_of_them": float((nearest >= len(SHAPES))[~is_object].mean()),
    }


def named_regions(scene: LabelledImage, words: list[str], cells: int) -> Iterator[tuple[Image.Image, int]]:
    """The image with all but one region black, and the number of the region's word."""
    for label in np.unique(scene.labels):
        region = scene.labels == label
        if cells:
            side = len(region) // cells
            blocks = region.reshape(cells, side, cells, side).mean((1, 3)) >= 0.5
            region = np.kron(blocks, np.ones((side, side), bool))
        pixels = np.where(region[..., None], np.asarray(scene.image), 0).astype(np.uint8)
        yield Image.fromarray(pixels), int(label) - 1 if label else words.index(scene.background)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
