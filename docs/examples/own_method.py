"""A method of your own: class activation maps of a small classifier, which it first trains on Shapes (10 s).

pseudolabel generate --config shapes --method cam --plugins docs/examples/own_method.py --source.path DATA --out runs/cam
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

import pseudolabel as pl
from pseudolabel.shapes.world import draw_scene


@dataclass(frozen=True)
class CamConfig:
    """Settings. Args: images: drawn to train on. epochs: passes over them."""

    images: int = 96
    epochs: int = 6


class Cam:
    def __init__(self, context, config):
        self.config, draw = config, lambda number: draw_scene(np.random.default_rng([7, number]))
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 32), (32, 64), (64, 64))]
            self.net = nn.Sequential(*layers, nn.Conv2d(64, 6, 1)).to(context.device)
            self.fit([draw(number) for number in range(config.images)])

    def pixels(self, image):
        return torch.from_numpy(np.array(image.resize((128, 128)))).permute(2, 0, 1)[None].float() / 255

    def fit(self, scenes):
        images = torch.cat([self.pixels(scene.image) for scene in scenes])
        truth = torch.tensor([[float(index + 1 in scene.classes) for index in range(6)] for scene in scenes])
        optimizer = torch.optim.Adam(self.net.parameters(), 3e-3)
        for part in list(torch.arange(len(images)).split(16)) * self.config.epochs:
            loss = nn.functional.binary_cross_entropy_with_logits(self.net(images[part]).mean((2, 3)), truth[part])
            optimizer.zero_grad(), loss.backward(), optimizer.step()

    def settings(self):
        return asdict(self.config)

    @torch.inference_mode()
    def __call__(self, samples):
        for sample in samples:
            maps = self.net(self.pixels(sample.image))[0, [index - 1 for index in sample.classes]]
            yield sample, pl.ScoreMaps(sample.key, sample.classes, maps.half().numpy(), sample.image.size[::-1])


pl.register_method(pl.Method("cam", Cam, CamConfig, produces=lambda _: "cams", needs_model=False))
