"""Images per second of the complete `generate`, and of each of its steps alone, beside the way of the released code.

    python -m scripts.bench generate --model shapes --images 64 --json generate.json    # the small model that ships
    python -m scripts.bench generate --images 2          # Stable Diffusion v1.5's architecture; minutes on a CPU
    python -m scripts.bench generate --images 1024 --device cuda --dtype bfloat16 --batch 32 --compile

Weights are random but for `shapes`: time does not depend on them. Images are 500 x 375 JPEGs with 1.555 classes on
average, as many as VOC's train_aug has; every class takes four timesteps. The rate of the command, from files to shards
of masks, is measured from the first shard of masks to the last, without loading and warming up. The released way gives
maps alone, without DenseCRF and without files.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pseudolabel.config import Experiment, ModelConfig, SourceConfig, WorkConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.folder import Folder
from pseudolabel.io.shipped import NAME
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.batching import static_batches
from pseudolabel.score_maps import min_max
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.packing import TAR
from pseudolabel.shards.sample import encode
from pseudolabel.sources.source import open_source
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt, token_weights
from pseudolabel.vocabulary import load_vocabulary

from .cams import count_flop
from .commands import run_on_shapes
from .measure import Clock, Peak, in_own_process, matmul_rate
from .options import PROMPTS, Dtype, checkpoint
from .report import table
from .ways import Clocked, released

COMMON = ("model", "device", "dtype", "batch", "threads")
CLASSES_PER_IMAGE = 1.555  # of VOC's train_aug
TRAIN_AUG = 10_582  # images
VOCABULARY = load_vocabulary(NAME)
TIMESTEPS = [1, 50, 100, 150]
WIDTH_HEIGHT = (500, 375)
SCENES = 16  # differing images; the others are copies of them
STEP_IMAGES = 64  # at most, for a step alone
STEPS = {
    "reading": "reading and decoding",
    "resize": "resizing to the model's square",
    "vae": "VAE",
    "text": "text",
    "unet": "U-Net to the last recorded layer",
    "propagation": "propagation",
    "writing": "encoding and writing of CAM shards",
}


@dataclass(frozen=True)
class Task:
    """What is run; `model` is `shapes` or a checkpoint folder, `data` a folder with `images.jsonl`."""

    model: str
    data: str
    images: int
    unit: int
    device: str
    dtype: Dtype
    batch: int
    compile: bool
    threads: int

    @property
    def options(self) -> dict[str, object]:
        """Of the command, beside the model's own settings."""
        return {
            "source.kind": "table",
            "source.path": f"{self.data}/images.jsonl",
            "model.dtype": self.dtype,
            "model.compile": self.compile,
            "diffsegmenter.timesteps": TIMESTEPS,
            "work.unit": self.unit,
            "work.batch": self.batch,
        }

    def experiment(self) -> Experiment:
        """The same settings."""
        settings = open_experiment(NAME) if self.model == NAME else Experiment()
        return replace(
            settings,
            source=SourceConfig(kind="table", path=f"{self.data}/images.jsonl"),
            model=ModelConfig(name=self.model, dtype=self.dtype, compile=self.compile),
            diffsegmenter=replace(settings.diffsegmenter, timesteps=TIMESTEPS),
            work=WorkConfig(unit=self.unit, batch=self.batch),
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--unit", type=int, default=0, help="images of a shard; 0 makes four shards, or more of 256")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--compile", action="store_true")


def measure(args: argparse.Namespace) -> dict:
    args.unit = args.unit or max(1, min(WorkConfig.unit, args.images // 4))
    settings = {name: value for name, value in vars(args).items() if name in Task.__annotations__}
    with checkpoint(args.model) as model, TemporaryDirectory() as folder:
        write_images(Path(folder) / "data", args.images)
        task = Task(**settings | {"model": model, "data": f"{folder}/data"})
        report = {part: in_own_process(PARTS[part], task) for part in args.parts}
    return report | conclude(report, classes_per_image(args.images))


# The data.


def write_images(folder: Path, images: int) -> None:
    """JPEGs and the table that lists them with their classes."""
    folder.mkdir()
    width, height = WIDTH_HEIGHT
    top = (width - height) // 2
    for number in range(min(SCENES, images)):
        scene = draw_scene(np.random.default_rng(number), width)
        scene.image.crop((0, top, width, top + height)).save(folder / f"scene_{number}.jpg", quality=95)
    rows = []
    for number in range(images):
        count = classes_of(number + 1) - classes_of(number)
        labels = [VOCABULARY.names[1 + (number + other) % len(VOCABULARY)] for other in range(count)]
        rows.append({"key": f"image_{number:06d}", "image": f"scene_{number % SCENES}.jpg", "labels": labels})
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def classes_of(images: int) -> int:
    """Classes that the first so many images have together."""
    return math.floor(CLASSES_PER_IMAGE * images)


def classes_per_image(images: int) -> float:
    return classes_of(images) / images


# The command, from files to shards of masks.


def measure_command(task: Task) -> dict[str, object]:
    """Rates of `generate` and, once its CAMs are there, of `refine` alone; what the machine could do at most."""
    torch.set_num_threads(task.threads)
    with TemporaryDirectory() as out:
        began = time.time()
        run_on_shapes("generate", task.model, out, task.device, task.threads, task.options)
        report: dict[str, object] = {
            "seconds": time.time() - began,
            "labelling": pace(Path(out) / "cams", task, began),
            "all": pace(Path(out) / "masks", task, began),
        }
        rmtree(Path(out) / "masks")
        began = time.time()
        run_on_shapes("refine", task.model, out, task.device, task.threads, task.options)
        report["refining"] = pace(Path(out) / "masks", task, began)
    device = torch.device(task.device)
    model = load_model(task.experiment().model, device)
    unet_flop, vae_flop = count_flop(model)
    return report | {
        "unet_flop": unet_flop,
        "vae_flop": vae_flop,
        "matmul_flops": matmul_rate(device, model.dtype),
    }


def pace(folder: Path, task: Task, began: float) -> dict[str, float]:
    """Images per second between the ends of the first and the last shard, or of the only one since the start."""
    ends = sorted(path.stat().st_mtime for path in folder.glob(f"{folder.name}-*.json"))
    if len(ends) != math.ceil(task.images / task.unit):
        raise SystemExit(f"{len(ends)} shards in {folder}")
    rate = (task.images - task.unit) / (ends[-1] - ends[0]) if len(ends) > 1 else task.images / (ends[0] - began)
    return {"first_shard_seconds": ends[0] - began, "images_per_second": rate}


# The steps, one after the other, with nothing beside them.


def measure_steps(task: Task) -> dict[str, object]:
    """Seconds per image of each step; reading, resizing and writing have one thread."""
    torch.set_num_threads(task.threads)
    with TemporaryDirectory() as out:
        experiment = task.experiment()
        model = load_model(experiment.model, torch.device(task.device))
        source = open_source(experiment.source, VOCABULARY)
        peak, clock = Peak(model.device), Clock(model.device)
        with clock.part("reading"):
            samples = [source.read(entry) for entry in source.entries[:STEP_IMAGES]]
        if task.compile or task.device != "cpu":
            label(experiment, model, samples, Clock(model.device))  # compiles, and sets up a GPU's libraries
        cams = label(experiment, model, samples, clock)
        with clock.part("writing"):
            members = [(one.key, encode(one, own, "cams", VOCABULARY)) for one, own in zip(samples, cams, strict=True)]
            with Folder(out).write("cams.tar") as file:
                TAR.write(file, members)
    return {
        "seconds_per_image": {step: seconds / len(samples) for step, seconds in clock.seconds.items()},
        "peak_bytes": peak.bytes(),
    }


def label(experiment: Experiment, model: DiffusionModel, samples: Sequence[Sample], clock: Clock) -> list[ScoreMaps]:
    """What the labelling stage does with samples, one step after the other."""
    pairs_together = max(1, experiment.work.batch // len(TIMESTEPS))
    with clock.part("resize"):
        pixels = [model.pixels(sample.image) for sample in samples]
    with clock.part("vae"):
        batches = static_batches(pixels, pairs_together)
        latents = torch.cat([model.encode(torch.stack(batch))[:count] for batch, count in batches])
    pairs = [(number, index) for number, sample in enumerate(samples) for index in sample.classes]
    with clock.part("text"):
        prompts = [build_prompt(VOCABULARY.template, VOCABULARY.prompt(index)) for _, index in pairs]
        tokens = [token_weights(model.tokenizer, prompt, experiment.diffsegmenter) for prompt in prompts]
        encodings = TextEncodings(model, [one.text for one in tokens])
        embeddings = torch.stack([encodings.emphasised(one.text, one.emphasis) for one in tokens])
        weights = torch.stack([one.weights for one in tokens])[:, None]
    noise = torch.stack([draw_noise(0, "noise", sample.key, 1, model.latent_shape) for sample in samples])
    method, maps = Clocked(model, experiment.diffsegmenter, clock), []
    for batch, count in static_batches(range(len(pairs)), pairs_together):
        images = torch.tensor([pairs[number][0] for number in batch])
        with clock.part("unet"):
            made = method(latents[images], noise[images], embeddings[list(batch)], weights[list(batch)])[:, 0]
        maps.append(min_max(made[:count]).half().cpu())
    rows = torch.cat(maps).split([len(sample.classes) for sample in samples])
    return [
        ScoreMaps(sample.key, sample.classes, own.numpy(), (sample.image.height, sample.image.width))
        for sample, own in zip(samples, rows, strict=True)
    ]


# The released way.


def measure_released(task: Task) -> dict[str, float]:
    """Seconds of one image with one class, and by that of an image with as many as the data have."""
    torch.set_num_threads(task.threads)
    experiment = replace(task, compile=False).experiment()
    model = load_model(experiment.model, torch.device(task.device))
    source = open_source(experiment.source, VOCABULARY)
    sample = source.read(source.entries[0])
    noise = draw_noise(0, "noise", sample.key, 1, model.latent_shape)[None]
    for _ in range(1 if task.device == "cpu" else 2):  # a GPU sets up its libraries in the first round
        clock, began = Clock(model.device), time.perf_counter()
        released(model, experiment.diffsegmenter, [sample.image], PROMPTS[:1], noise, clock)
        seconds = time.perf_counter() - began
    by_class = seconds - clock.seconds["vae"]
    return {"seconds": seconds, "seconds_per_image": seconds + (classes_per_image(task.images) - 1) * by_class}


PARTS = {"command": measure_command, "steps": measure_steps, "released": measure_released}


# Results.


def conclude(report: dict, classes: float) -> dict[str, float]:
    """Figures that follow from several parts; none of a part that was not measured."""
    if "command" not in report:
        return {}
    command = report["command"]
    rate = command["all"]["images_per_second"]
    flop = command["vae_flop"] + classes * len(TIMESTEPS) * command["unet_flop"]
    conclusion = {
        "images_per_second": rate,
        "flop_per_image": flop,
        "share_of_matmul": rate * flop / command["matmul_flops"],
        "train_aug_minutes": TRAIN_AUG / rate / 60,
    }
    if "released" in report:
        conclusion["speedup"] = rate * report["released"]["seconds_per_image"]
    return conclusion


def tables(report: dict) -> list[str]:
    settings, command = report["settings"], report.get("command")
    compiled = ", compiled" if settings["compile"] else ""
    shown = []
    for title, seconds, flop in rows(report):
        share = f"{100 * flop / seconds / command['matmul_flops']:.1f}" if flop and command else ""
        shown.append([title, f"{seconds:.3g}", f"{1 / seconds:.3g}", share])
    note = ""
    if command:
        speedup = f"{report['speedup']:.3g} times as fast as the released way; " if "speedup" in report else ""
        note = (
            f"{speedup}{TRAIN_AUG:,} images take {report['train_aug_minutes']:.3g} minutes; "
            f"a matrix product reaches {command['matmul_flops'] / 1e12:.3g} TFLOP/s."
        )
    title = f"generate, {settings['dtype']} on {settings['device']}, batches of {settings['batch']}{compiled}"
    return [table(title, ["", "s per image", "images/s", "of matmul %"], shown, note)]


def rows(report: dict) -> list[tuple[str, float, float]]:
    """Title, seconds per image and FLOP per image where they are counted."""
    found: list[tuple[str, float, float]] = []
    command, steps = report.get("command", {}), report.get("steps", {"seconds_per_image": {}})
    flop = {"vae": command["vae_flop"], "unet": report["flop_per_image"] - command["vae_flop"]} if command else {}
    for step, seconds in steps["seconds_per_image"].items():
        found.append((STEPS[step], seconds, flop.get(step, 0)))
    if command:
        found.append(("DenseCRF alone, shards to shards", 1 / command["refining"]["images_per_second"], 0))
        labelling = 1 / command["labelling"]["images_per_second"]
        found.append(("labelling within the command", labelling, report["flop_per_image"]))
        found.append(("the command", 1 / command["all"]["images_per_second"], report["flop_per_image"]))
    if "released" in report:
        found.append(("the released way, maps alone", report["released"]["seconds_per_image"], 0))
    return found
