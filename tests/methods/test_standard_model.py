"""The shipped model for standard scenes tells methods apart: a sharper affinity raises the score."""

from dataclasses import replace

import numpy as np
import pytest

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.difficulty import DIFFICULTIES
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import context

pytestmark = pytest.mark.slow


def miou(config: DiffSegmenterConfig) -> float:
    scenes = [draw_scene(np.random.default_rng([7, n]), difficulty=DIFFICULTIES["standard"]) for n in range(40)]
    samples = [Sample(f"scene_{number}", scene.image, scene.classes) for number, scene in enumerate(scenes)]
    vocabulary = load_vocabulary("shapes")
    sweep = ThresholdSweep.empty(len(vocabulary))
    predictor = DiffSegmenterPredictor(context("shapes_standard", vocabulary, batch=32), config)
    for scene, (_, result) in zip(scenes, predictor(samples), strict=True):
        assert isinstance(result, ScoreMaps)
        sweep.add(scene.labels, at_image_size(result.maps, result.size), scene.classes)
    return 100 * sweep.oracle()[0]


def test_a_sharper_affinity_raises_the_score() -> None:
    chosen = replace(open_experiment("shapes_standard").diffsegmenter, timesteps=[100])
    once = replace(chosen, affinity="attention", iterations=1)
    cross, plain, best = miou(replace(once, self_attention="none")), miou(once), miou(chosen)
    assert 60 < cross < 80
    assert best > cross + 4
    assert best > plain + 2
