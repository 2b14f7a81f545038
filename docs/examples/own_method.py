"""A method of your own: class activation maps from colours, learned from drawn Shapes in seconds.

pseudolabel generate --config shapes --method cam --plugins docs/examples/own_method.py --source.path data/shapes
"""

from dataclasses import asdict, dataclass

import numpy as np

import pseudolabel as pl
from pseudolabel.shapes.world import draw_scene


@dataclass(frozen=True)
class CamConfig:
    """Args: scenes: number of training images."""

    scenes: int = 300


class Cam:
    """A colour's score for a class: the share of its pixels that are in training images of the class."""

    def __init__(self, context, config):
        self.settings = lambda: asdict(config)
        scenes = [draw_scene(np.random.default_rng([context.seed, number])) for number in range(config.scenes)]
        counts = np.stack([np.bincount(self.colours(scene.image).ravel(), minlength=512) for scene in scenes])
        present = np.array([[index in scene.classes for index in range(1, 7)] for scene in scenes])
        self.scores = np.stack([counts[own].sum(0) / (counts.sum(0) + 1) for own in present.T])

    def colours(self, image):
        return np.asarray(image.resize((64, 64))) // 32 @ np.array([64, 8, 1])  # one of 512 per pixel, int (64, 64)

    def __call__(self, samples):
        for sample in samples:
            scores = self.scores[[index - 1 for index in sample.classes]][:, self.colours(sample.image)]
            yield sample, pl.ScoreMaps(sample.key, sample.classes, scores.astype(np.float16), sample.size)


pl.register_method(pl.Method("cam", Cam, CamConfig, produces=lambda _: "cams", needs_model=False))
