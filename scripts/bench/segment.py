"""Seconds per image of every method, ours beside a plain version of it, on Stable Diffusion v1.5's architecture.

    python -m scripts.bench segment                                   # every method, both ways, one image, 2 classes
    python -m scripts.bench segment --model shapes --json segment.json       # the small models that ship
    python -m scripts.bench segment --device cuda --methods diffseg freesegdiff

Weights are random: time does not depend on them. The plain versions are the references that the tests compare ours
with: one class, one timestep, one region at a time, full matrices, the complete U-Net. ELBO's time is that of the
samples given with --samples; it grows in proportion to them. CLIP's time is that of the small one that ships.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from pseudolabel.config import Experiment, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.experiment_file import load_experiment
from pseudolabel.io.shipped import NAME, resolve
from pseudolabel.methods.registry import METHODS, Context, chosen_method
from pseudolabel.records import LabelMap, Sample, ScoreMaps
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain import diffseg, diffsegmenter, elbo, freesegdiff

from .options import PROMPTS, checkpoint
from .report import table

COMMON = ("model", "classes", "device", "threads", "seed")
TIMESTEP = 100  # DiffSegmenter's in the zero-shot setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--samples", type=int, default=2, help="of ELBO")


def measure(args: argparse.Namespace) -> dict:
    torch.set_num_threads(args.threads)
    with checkpoint(args.model) as model:
        experiment = choose_settings(args, model)
        loaded = load_model(experiment.model, torch.device(args.device))
        seconds = {
            method: {way: time_one(args, WAYS[way](method, experiment, loaded), loaded.image_size) for way in args.ways}
            for method in args.methods
        }
    return {"seconds": seconds}


def tables(report: dict) -> list[str]:
    rows = []
    for method, seconds in report["seconds"].items():
        ratio = f"{seconds['plain'] / seconds['ours']:.1f}" if len(seconds) == len(WAYS) else ""
        rows.append([method, *(f"{seconds[way]:.2f}" if way in seconds else "" for way in WAYS), ratio])
    return [table("One image, seconds after loading", ["method", *WAYS, "ratio"], rows)]


def time_one(args: argparse.Namespace, run: "Run", side: int) -> float:
    """Seconds of one image, the models being loaded."""
    image = draw_scene(np.random.default_rng(args.seed), side).image
    sample = Sample("image", image, tuple(range(1, args.classes + 1)))
    started = time.perf_counter()
    run(sample)
    if args.device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def choose_settings(args: argparse.Namespace, model: str) -> Experiment:
    """The methods' defaults on Stable Diffusion, or on Shapes those that were chosen for it."""
    experiment = load_experiment(NAME) if model == NAME else Experiment(model=ModelConfig(name=model))
    return replace(
        experiment,
        diffsegmenter=replace(experiment.diffsegmenter, timesteps=[TIMESTEP]),
        elbo=replace(experiment.elbo, samples=args.samples),
        freesegdiff=replace(experiment.freesegdiff, clip=NAME),
    )


Run = Callable[[Sample], object]


def ours(method: str, experiment: Experiment, model: DiffusionModel) -> Run:
    entry, settings = chosen_method(replace(experiment, method=method))
    predictor = entry.build(Context(model.device, load_vocabulary(NAME), model), settings)

    def run(sample: Sample) -> ScoreMaps | LabelMap:
        ((_, result),) = predictor([sample])
        if not isinstance(result, (ScoreMaps, LabelMap)):
            raise result
        return result

    return run


def plainly(method: str, experiment: Experiment, model: DiffusionModel) -> Run:
    return {
        "diffsegmenter": plain_diffsegmenter,
        "elbo": plain_elbo,
        "diffseg": plain_diffseg,
        "freesegdiff": plain_freesegdiff,
    }[method](experiment, model)


def plain_diffsegmenter(experiment: Experiment, model: DiffusionModel) -> Run:
    noise = draw_noise(0, "noise", "image", 1, model.latent_shape)

    def run(sample: Sample) -> object:
        sentences = [diffsegmenter.write_sentence("a photograph of {}", PROMPTS[index - 1]) for index in sample.classes]
        config = experiment.diffsegmenter
        return diffsegmenter.score_maps(model, config, sample.image, sentences, noise, guidance_pair=True)

    return run


def plain_elbo(experiment: Experiment, model: DiffusionModel) -> Run:
    noise = draw_noise(0, "noise", "image", experiment.elbo.samples, model.latent_shape)

    def run(sample: Sample) -> object:
        prompts = ["", *(f"a photograph of {PROMPTS[index - 1]}" for index in sample.classes)]
        return elbo.log_likelihoods(model, model.prediction, experiment.elbo, sample.image, prompts, noise)

    return run


def plain_diffseg(experiment: Experiment, model: DiffusionModel) -> Run:
    config = experiment.diffseg

    def run(sample: Sample) -> object:
        tensors = diffseg.self_attention(model, sample.image, config.timestep)
        maps = diffseg.proposals(diffseg.aggregate(tensors, config.weights), config)
        return diffseg.segment(maps, (sample.image.height, sample.image.width))

    return run


def plain_freesegdiff(experiment: Experiment, model: DiffusionModel) -> Run:
    config, folder = experiment.freesegdiff, resolve(NAME, "clip")
    clip, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    rng = np.random.default_rng(0)

    def run(sample: Sample) -> object:
        features = freesegdiff.points(model, config, sample.image, None)
        starts = [rng.choice(len(features), config.clusters, replace=False).tolist() for _ in range(config.restarts)]
        clusters = freesegdiff.cluster(features, starts).reshape(config.side, config.side)
        classes = set(sample.classes)
        image: Image.Image = sample.image
        return freesegdiff.segment(config, image, clusters, clip, processor, PROMPTS, len(PROMPTS), classes)

    return run


WAYS: dict[str, Callable[[str, Experiment, DiffusionModel], Run]] = {"plain": plainly, "ours": ours}
