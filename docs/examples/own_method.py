"""A method of your own: class activation maps of a small classifier, trained on drawn Shapes first (10 s).

pseudolabel generate --config shapes --method cam --plugins docs/examples/own_method.py --source.path data/shapes
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

import pseudolabel as pl
from pseudolabel.shapes.world import draw_scene


@dataclass(frozen=True)
class CamConfig:
    """Args: epochs: passes over the 96 training images."""

    epochs: int = 6


class Cam:
    """A convolutional network whose six maps score a shape each; their means classify the image."""

    def __init__(self, context, config):
        self.settings = lambda: asdict(config)
        torch.manual_seed(context.seed)
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 32), (32, 64), (64, 64))]
        self.net = nn.Sequential(*layers, nn.Conv2d(64, 6, 1)).to(context.device)
        scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(96)]
        optimizer = torch.optim.Adam(self.net.parameters(), 3e-3)
        for scene in scenes * config.epochs:
            truth = torch.tensor([float(index in scene.classes) for index in range(1, 7)], device=context.device)
            loss = nn.functional.binary_cross_entropy_with_logits(self.maps(scene.image).mean((1, 2)), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def maps(self, image):
        """Class scores (6, h, w) of an RGB image."""
        pixels = torch.tensor(np.asarray(image.resize((128, 128))), device=self.net[-1].weight.device)
        return self.net(pixels.permute(2, 0, 1) / 255)

    @torch.inference_mode()
    def __call__(self, samples):
        """Every sample with its score maps."""
        for sample in samples:
            maps = self.maps(sample.image)[[index - 1 for index in sample.classes]].half().cpu().numpy()
            yield sample, pl.ScoreMaps(sample.key, sample.classes, maps, (sample.image.height, sample.image.width))


pl.register_method(pl.Method("cam", Cam, CamConfig, produces=lambda _: "cams", needs_model=False))
