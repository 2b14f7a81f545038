"""Seconds and memory of DiffSegmenter's settings beside the released way, on Stable Diffusion v1.5's architecture.

    python -m scripts.bench presets                                # one image of 2 classes; minutes
    python -m scripts.bench presets --model FOLDER --classes 3     # a checkpoint of yours, with three classes

Weights are random: neither time nor memory depends on them. Each row runs in a process of its own. Memory is the peak
above what the loaded weights take.
"""

import argparse
import time
from dataclasses import replace
from itertools import chain

import numpy as np

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.errors import SampleError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary

from .cams import COMMON, Task, measure_one, prepare
from .measure import Peak, in_own_process
from .options import checkpoint
from .report import MIB, table

__all__ = ["COMMON", "add_arguments", "measure", "tables"]
PAPER = DiffSegmenterConfig()
WAYS = {
    "the paper's four timesteps, one prompt per class": PAPER,
    "one joint prompt": replace(PAPER, prompt="joint"),
    "one timestep": replace(PAPER, timesteps=[100]),
    "one joint prompt, one timestep": replace(PAPER, prompt="joint", timesteps=[100]),
    # Numbers of heads belong to a checkpoint; all of them take longer.
    "iSeg: joint prompt, one timestep, 10 passes": replace(open_experiment("iseg_voc").diffsegmenter, self_heads=[]),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def measure(args: argparse.Namespace) -> dict:
    settings = {name: value for name, value in vars(args).items() if name in Task.__annotations__}
    with checkpoint(args.model) as model:
        task = Task(**settings | {"model": model, "images": 1, "timesteps": PAPER.timesteps})
        released = in_own_process(measure_one, task, "released")
        del released["maps"]
        return {"released": released, "ours": {way: in_own_process(measure_way, task, way) for way in WAYS}}


def measure_way(task: Task, way: str) -> dict:
    """Seconds of the fastest run, mean CPU seconds, U-Net forward passes of an image, and the peak over all runs."""
    model, device = prepare(task)
    passes: list[int] = []
    model.unet.register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
    image = draw_scene(np.random.default_rng(task.seed)).image
    sample = Sample("scene", image, tuple(range(1, task.classes + 1)))
    context = Context(device, load_vocabulary("shapes"), model, batch=task.batch, seed=task.seed)
    peak, seconds, cpu = Peak(device), [], time.process_time()
    for _ in range(task.repeat):
        started = time.perf_counter()
        for _, result in DiffSegmenterPredictor(context, WAYS[way])([sample]):
            if isinstance(result, SampleError):
                raise result
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": min(seconds),
        "cpu_seconds": (time.process_time() - cpu) / task.repeat,
        "forwards": sum(passes) / task.repeat,
        "peak_bytes": peak.bytes(),
    }


def tables(report: dict) -> list[str]:
    settings, old = report["settings"], report["released"]
    whole = {"the released way": {**old, "forwards": 2 * settings["classes"] * len(PAPER.timesteps)}}
    rows = [
        [
            way,
            f"{row['forwards']:g}",
            f"{row['seconds']:.3g}",
            f"{row['cpu_seconds']:.3g}",
            f"{old['cpu_seconds'] / row['cpu_seconds']:.2f}",
            f"{row['peak_bytes'] / MIB:.0f}",
        ]
        for way, row in chain(whole.items(), report["ours"].items())
    ]
    return [
        table(
            f"1 image, {settings['classes']} classes, {settings['dtype']} on {settings['device']}",
            ["", "U-Net rows", "s", "CPU s", "times faster (CPU s)", "peak above the weights, MiB"],
            rows,
        )
    ]
