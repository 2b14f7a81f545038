"""A method of your own: `pseudolabel generate --config shapes --method cam --plugins docs/examples/own_method.py`."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

import pseudolabel as pl
from pseudolabel.shapes.world import draw_scene


@dataclass(frozen=True)
class CamConfig:
    """A classifier of colours; the largest score of a class's map says whether the image has the class.
    Args:
        scenes: number of drawn images that the classifier is trained on."""

    scenes: int = 300


class Cam:
    def __init__(self, context, config):
        self.settings = lambda: asdict(config)
        torch.manual_seed(context.seed)
        net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 6)).to(context.device)
        self.maps = lambda image: net(torch.tensor(np.array(image.resize((64, 64))) / 255).float().to(context.device))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for scene in [draw_scene(np.random.default_rng([context.seed, number])) for number in range(config.scenes)]:
            truth = torch.tensor([float(index in scene.classes) for index in range(1, 7)], device=context.device)
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(self.maps(scene.image).amax((0, 1)), truth).backward()
            optimizer.step()

    def __call__(self, samples):
        for sample in samples:
            maps = self.maps(sample.image)[..., [i - 1 for i in sample.classes]].permute(2, 0, 1).sigmoid().detach()
            yield sample, pl.ScoreMaps(sample.key, sample.classes, maps.half().cpu().numpy(), sample.size)


pl.register_method(pl.Method("cam", Cam, CamConfig, produces=lambda _: "cams", needs_model=False))
