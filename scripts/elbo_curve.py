"""How many draws the ELBO baseline needs: mIoU of its maps against their number, on Shapes with the small model.

One pass per image: the likelihoods' running means are scored after 1, 2, 4, ... draws. For each number of draws the
background threshold is chosen on scenes of the training seed, and the score is that of other scenes. Writes
`elbo_curve.json` and `elbo_curve.png`.

    python scripts/elbo_curve.py --images 24 --samples 64
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import OutputError
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.own_folder import claim_folder
from pseudolabel.methods.elbo import PixelLikelihood
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.world import Scene, draw_scene
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt
from pseudolabel.views.plots import plot_draws
from pseudolabel.vocabulary import load_vocabulary

Decision = Literal["softmax", "argmax"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
TRAINING_SEED = 0  # the seed whose scenes the model was trained on
HELD_OUT_SEED, VAL = 20231, 1  # as `pseudolabel shapes --train 0 --seed 20231` draws them
VOCABULARY = load_vocabulary("shapes")

Sweeps = dict[tuple[Decision, int], ThresholdSweep]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/elbo_curve"))
    parser.add_argument("--images", type=int, default=24, help="of each seed")
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    try:
        claim_folder(arguments.out, "elbo_curve.py")
    except OutputError as error:
        parser.error(str(error))
    config = open_experiment("shapes").elbo
    method = PixelLikelihood(load_model(ModelConfig(name="shapes"), torch.device("cpu")), config)
    numbers = range(arguments.images)
    began = time.monotonic()
    tuning = sweep(method, arguments.samples, [draw_scene(np.random.default_rng([TRAINING_SEED, n])) for n in numbers])
    seeds = ([HELD_OUT_SEED, VAL, n + 1] for n in numbers)
    scored = sweep(method, arguments.samples, [draw_scene(np.random.default_rng(seed)) for seed in seeds])
    seconds = (time.monotonic() - began) / (2 * arguments.images * arguments.samples)
    rows: dict[str, list[Row]] = {decision: collect(decision, tuning, scored) for decision in DECISIONS}
    report = {
        "data": {"source": "shapes", "seed": HELD_OUT_SEED, "images": arguments.images, "tuned_on": TRAINING_SEED},
        "timesteps": config.timesteps,
        "temperature": config.temperature,
        "seconds_per_image_and_draw": seconds,
        "curves": {decision: [asdict(row) for row in own] for decision, own in rows.items()},
    }
    (arguments.out / "elbo_curve.json").write_text(json.dumps(report, indent=2) + "\n")
    curves: dict[str, dict[int, float]] = {name: {row.samples: row.miou for row in own} for name, own in rows.items()}
    plot_draws(curves, f"{arguments.images} images of Shapes", arguments.out / "elbo_curve.png")
    print(json.dumps(report, indent=2))


def sweep(method: PixelLikelihood, samples: int, scenes: Sequence[Scene]) -> Sweeps:
    """Scores at every threshold after each number of draws."""
    encodings = TextEncodings(method.model, ["", *(prompt(index) for index in range(1, len(VOCABULARY) + 1))])
    deciders = {name: PixelLikelihood(method.model, replace(method.config, decision=name)) for name in DECISIONS}
    sweeps: Sweeps = {}
    for number, scene in enumerate(scenes):
        noise = draw_noise(0, "noise", f"scene_{number}", samples, method.model.latent_shape)
        embeddings = torch.stack([encodings.plain(""), *(encodings.plain(prompt(index)) for index in scene.classes)])
        for draws, mean in running_means(method, scene, embeddings, noise):
            for name, decider in deciders.items():
                counts = sweeps.setdefault((name, draws), ThresholdSweep.empty(len(VOCABULARY)))
                counts.add(scene.labels, at_image_size(decider.scores(mean), scene.labels.shape), scene.classes)
    return sweeps


def prompt(index: int) -> str:
    return build_prompt(VOCABULARY.template, VOCABULARY.prompt(index)).text


def running_means(
    method: PixelLikelihood, scene: Scene, embeddings: torch.Tensor, noise: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor]]:
    """Mean log-likelihoods (prompts, h, w) after 1, 2, 4, ... draws and after the last one."""
    latents = method.model.encode(method.model.pixels(scene.image)[None]).expand(len(embeddings), -1, -1, -1)
    total = torch.zeros(())
    for number, own in enumerate(noise):
        timesteps = torch.full((len(embeddings),), method.timestep(number))
        total = total + method.log_likelihood(latents, own.expand_as(latents), timesteps, embeddings)
        draws = number + 1
        if draws & number == 0 or draws == len(noise):
            yield draws, total / draws


@dataclass(frozen=True)
class Row:
    """Mean IoU after some draws, at the threshold chosen on the training seed and at the best one."""

    samples: int
    threshold: float
    miou: float
    oracle_miou: float


def collect(decision: Decision, tuning: Sweeps, scored: Sweeps) -> list[Row]:
    rows = []
    for draws in (own for name, own in scored if name == decision):
        threshold = tuning[decision, draws].oracle()[1]
        held_out = scored[decision, draws]
        rows.append(Row(draws, threshold, held_out.at(threshold).miou, held_out.oracle()[0]))
    return rows


if __name__ == "__main__":
    main()
