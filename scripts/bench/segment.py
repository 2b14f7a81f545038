"""Seconds per image of every method, ours against a plain version of it, on the architecture of Stable Diffusion v1.5.

    python scripts/bench/segment.py                                   # every method, both ways, one image, 2 classes
    python scripts/bench/segment.py --model shapes --json segment.json       # a quick look with the shipped models
    python scripts/bench/segment.py --device cuda --methods diffseg freesegdiff

Weights are random: time does not depend on them. The plain versions are the references that the tests hold ours
against: one class, one timestep, one region at a time, full matrices, the whole U-Net. ELBO's time is that of the
samples given with --samples; it grows in proportion to them. CLIP's time is that of the small one that ships.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from meter import machine, versions
from PIL import Image
from report_file import free_file, write_report
from rich.console import Console
from rich.table import Table
from transformers import CLIPModel, CLIPProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cams import NAMES, WIDTH

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
from tests.plain.architectures import stable_diffusion_v15

TIMESTEP = 100  # DiffSegmenter's in the zero-shot setting


@dataclass(frozen=True)
class Task:
    """One image by one method; `model` is `shapes` or a checkpoint folder."""

    method: str
    model: str
    classes: int
    samples: int
    device: str
    threads: int
    seed: int


def main() -> None:
    args = parse_arguments()
    with TemporaryDirectory() as folder:
        model = str(stable_diffusion_v15(Path(folder))) if args.model == "sd15" else args.model
        rows = {}
        for method in args.methods:
            task = Task(method, model, args.classes, args.samples, args.device, args.threads, args.seed)
            rows[method] = {way: measure(task, way) for way in args.ways}
            print(f"{method}: " + ", ".join(f"{way} {row['seconds']:.1f} s" for way, row in rows[method].items()))
    report = {
        "settings": {**vars(args), "json": None},
        "seconds": {method: {way: row["seconds"] for way, row in ways.items()} for method, ways in rows.items()},
        "machine": machine(torch.device(args.device)),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    Console(width=WIDTH).print(table(rows))
    if args.json:
        write_report(args.json, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["sd15", NAME], default="sd15")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--classes", type=int, choices=range(1, len(NAMES) + 1), default=2, help="classes of the image")
    parser.add_argument("--samples", type=int, default=2, help="of ELBO")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=free_file, help="file for the figures")
    return parser.parse_args()


def table(rows: dict[str, dict[str, dict]]) -> Table:
    shown = Table(title="one image, seconds after loading")
    for heading in ("method", "plain", "ours", "ratio"):
        shown.add_column(heading, justify="left" if heading == "method" else "right")
    for method, ways in rows.items():
        seconds = {way: row["seconds"] for way, row in ways.items()}
        ratio = f"{seconds['plain'] / seconds['ours']:.1f}" if len(seconds) == len(WAYS) else ""
        shown.add_row(method, *(f"{seconds[way]:.2f}" if way in seconds else "" for way in WAYS), ratio)
    return shown


def measure(task: Task, way: str) -> dict:
    """Seconds of one image, the models being loaded."""
    torch.set_num_threads(task.threads)
    experiment = settings(task)
    model = load_model(experiment.model, torch.device(task.device))
    image = draw_scene(np.random.default_rng(task.seed), model.image_size).image
    sample = Sample("image", image, tuple(range(1, task.classes + 1)))
    run = WAYS[way](task.method, experiment, model)
    started = time.perf_counter()
    run(sample)
    if task.device != "cpu":
        torch.accelerator.synchronize()
    return {"seconds": time.perf_counter() - started}


def settings(task: Task) -> Experiment:
    """The method's defaults on Stable Diffusion, or on Shapes those that were chosen for it."""
    experiment = load_experiment(NAME) if task.model == NAME else Experiment(model=ModelConfig(name=task.model))
    return replace(
        experiment,
        method=task.method,
        diffsegmenter=replace(experiment.diffsegmenter, timesteps=[TIMESTEP]),
        elbo=replace(experiment.elbo, samples=task.samples),
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
        sentences = [diffsegmenter.write_sentence("a photograph of {}", NAMES[index - 1]) for index in sample.classes]
        config = experiment.diffsegmenter
        return diffsegmenter.score_maps(model, config, sample.image, sentences, noise, guidance_pair=True)

    return run


def plain_elbo(experiment: Experiment, model: DiffusionModel) -> Run:
    noise = draw_noise(0, "noise", "image", experiment.elbo.samples, model.latent_shape)

    def run(sample: Sample) -> object:
        prompts = ["", *(f"a photograph of {NAMES[index - 1]}" for index in sample.classes)]
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
        return freesegdiff.segment(config, image, clusters, clip, processor, NAMES, len(NAMES), classes)

    return run


WAYS: dict[str, Callable[[str, Experiment, DiffusionModel], Run]] = {"plain": plainly, "ours": ours}


if __name__ == "__main__":
    main()
