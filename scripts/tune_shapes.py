"""Choose a small model's own settings on a training seed: DiffSegmenter's, the threshold and the CRF's.

Prints every candidate with its score and, at the end, the lines for the model's file in configs/pipeline. The images
that scores are reported on are drawn from other seeds.

    python scripts/tune_shapes.py --images 100
    python scripts/tune_shapes.py --images 100 --model shapes_standard
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pseudolabel.config import CrfConfig, DiffSegmenterConfig, ModelConfig
from pseudolabel.crf.densecrf import refine
from pseudolabel.diffusion.load import load_model
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.difficulty import DIFFICULTIES
from pseudolabel.shapes.world import Scene, draw_scene
from pseudolabel.vocabulary import load_vocabulary

TRAINING_SEED = 0  # the seed whose scenes the model was trained on

# Each with more than one resolution: with 8 alone the score was the same within .1, and nothing was left to weigh.
LEVEL_WEIGHTS = [
    {8: 0.9, 16: 0.1},
    {8: 0.8, 16: 0.2},
    {8: 0.7, 16: 0.3},
    {8: 0.25, 16: 0.25, 32: 0.25, 64: 0.25},
]
SELF_ATTENTION: list[dict[str, Any]] = [{"self_attention": kind} for kind in ("none", "highest", "all")]
# The first self-attention layer of stride 4 has weights of zero, and so have those of other strides.
ONE_LAYER: dict[str, Any] = {"level_weights": {8: 1.0}, "self_attention": "layers", "self_layers": [1]}
# Peaks and the entropy step lose here (docs/notes/experiments.md).
AFFINITIES: list[dict[str, Any]] = [{}, *({"affinity": "power", "affinity_value": value} for value in (2.0, 4.0, 8.0))]
ITERATIONS = [1, 2, 3]
BACKGROUNDS = [0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.32, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]
AS_GOOD = 0.005
BILATERAL_SXY = [20.0, 40.0]
BILATERAL_SRGB = [8.0, 13.0, 20.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CANDIDATES, default="shapes")
    parser.add_argument("--folder", help="where the model is, if it does not ship yet")
    parser.add_argument("--images", type=int, default=160)
    arguments = parser.parse_args()
    candidates, difficulty = CANDIDATES[arguments.model]
    scenes = [
        draw_scene(np.random.default_rng([TRAINING_SEED, number]), difficulty=difficulty)
        for number in range(arguments.images)
    ]
    method, scores = choose_method(scenes, arguments.folder or arguments.model, candidates())
    sweep = sweep_thresholds(scenes, scores)
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        crf = choose_crf(scenes, scores, pool)
    print("\ndiffsegmenter:")
    for name, value in asdict(method).items():
        if value != getattr(DiffSegmenterConfig(), name):
            print(f"  {name}: {value}")
    print(f"crf:\n  bilateral_sxy: {crf.bilateral_sxy}\n  bilateral_srgb: {crf.bilateral_srgb}")
    print(f"  background: threshold\n  background_value: {crf.background_value}")
    print(f"evaluate:\n  threshold: {sweep.oracle()[1]}")


def easy_candidates() -> Iterator[DiffSegmenterConfig]:
    for weights, kind in itertools.product(LEVEL_WEIGHTS, SELF_ATTENTION):
        yield DiffSegmenterConfig(level_weights=weights, **kind)


def standard_candidates() -> Iterator[DiffSegmenterConfig]:
    for prompt in ("per_class", "joint"):
        start = DiffSegmenterConfig(prompt=prompt, **ONE_LAYER)
        yield replace(start, self_attention="none")
        for affinity, iterations in itertools.product(AFFINITIES, ITERATIONS):
            yield replace(start, iterations=iterations, **affinity)


CANDIDATES = {
    "shapes": (easy_candidates, DIFFICULTIES["easy"]),
    "shapes_standard": (standard_candidates, DIFFICULTIES["standard"]),
}


def choose_method(
    scenes: list[Scene], name: str, candidates: Iterable[DiffSegmenterConfig]
) -> tuple[DiffSegmenterConfig, list[np.ndarray]]:
    """The best candidate and the scenes' scores with it, float32 (C, H, W) each."""
    vocabulary, model = load_vocabulary("shapes"), load_model(ModelConfig(name=name), torch.device("cpu"))
    samples = [Sample(f"scene_{number:04d}", scene.image, scene.classes) for number, scene in enumerate(scenes)]
    best, best_miou, best_scores = DiffSegmenterConfig(), -1.0, []
    for method in candidates:
        predictor = DiffSegmenterPredictor(Context(model.device, vocabulary, model, batch=32), method)
        scores = [at_image_size(maps.maps, maps.size) for _, maps in predictor(samples) if isinstance(maps, ScoreMaps)]
        miou, threshold = sweep_thresholds(scenes, scores).oracle()
        changed = {key: value for key, value in asdict(method).items() if value != getattr(DiffSegmenterConfig(), key)}
        print(f"{100 * miou:6.2f} at {threshold:.2f}  {changed}", flush=True)
        if miou > best_miou:
            best, best_miou, best_scores = method, miou, scores
    return best, best_scores


def sweep_thresholds(scenes: Iterable[Scene], scores: Iterable[np.ndarray]) -> ThresholdSweep:
    sweep = ThresholdSweep.empty(len(load_vocabulary("shapes")))
    for scene, maps in zip(scenes, scores, strict=True):
        sweep.add(scene.labels, maps, scene.classes)
    return sweep


def choose_crf(scenes: list[Scene], scores: list[np.ndarray], pool: ProcessPoolExecutor) -> CrfConfig:
    start = replace(CrfConfig(), background="threshold", background_value=0.4, ignore_below=0.0)
    grid = [replace(start, bilateral_sxy=sxy, bilateral_srgb=rgb) for sxy in BILATERAL_SXY for rgb in BILATERAL_SRGB]
    kernel = max(grid, key=partial(mask_miou, scenes, scores, pool))
    values = [replace(kernel, background_value=value) for value in BACKGROUNDS]
    mious = [mask_miou(scenes, scores, pool, crf) for crf in values]
    # A little below the best value whole images may lose their background: take the middle of what is as good.
    good = [crf for crf, miou in zip(values, mious, strict=True) if miou > max(mious) - AS_GOOD]
    return good[len(good) // 2]


def mask_miou(scenes: list[Scene], scores: list[np.ndarray], pool: ProcessPoolExecutor, crf: CrfConfig) -> float:
    confusion = Confusion.empty(len(load_vocabulary("shapes")))
    jobs = pool.map(refine_scene, scenes, scores, itertools.repeat(crf), chunksize=8)
    for scene, labels in zip(scenes, jobs, strict=True):
        confusion.add(scene.labels, labels)
    place = f"sxy {crf.bilateral_sxy} srgb {crf.bilateral_srgb} background {crf.background_value}"
    print(f"{100 * confusion.miou:6.2f} after DenseCRF {place}", flush=True)
    return confusion.miou


def refine_scene(scene: Scene, scores: np.ndarray, crf: CrfConfig) -> np.ndarray:
    return refine(np.asarray(scene.image), scores, scene.classes, crf)[0]


if __name__ == "__main__":
    main()
