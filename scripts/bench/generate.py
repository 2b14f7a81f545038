"""Images per second of the whole `generate`, and of each station alone, beside the released way.

    python scripts/bench/generate.py --model shapes --images 64 --json generate.json    # a quick look
    python scripts/bench/generate.py --images 2                # Stable Diffusion v1.5's architecture, on a CPU minutes
    python scripts/bench/generate.py --images 1024 --device cuda --dtype bfloat16 --batch 32 --compile

Weights are random but for `shapes`: time does not depend on them. Images are 500 x 375 JPEGs with 1.555 classes on
average, as many as VOC's train_aug has; every class takes four timesteps. The whole is what the command does, from the
files to the shards of masks; its rate is measured from the first shard of masks to the last, which leaves out loading
and warming up. The released way gives maps alone, without DenseCRF and without files.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from meter import Clock, Peak, in_own_process, machine, matmul_rate, versions
from report_file import free_file, write_report
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cams import NAMES, WIDTH, count_flop
from ways import Clocked, released

from pseudolabel.config import Experiment, ModelConfig, SourceConfig, WorkConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.experiment_file import load_experiment
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
from tests.plain.architectures import stable_diffusion_v15

CLASSES_PER_IMAGE = 1.555  # of VOC's train_aug
TRAIN_AUG = 10_582  # images
VOCABULARY = load_vocabulary(NAME)
TIMESTEPS = [1, 50, 100, 150]
WIDTH_HEIGHT = (500, 375)
SCENES = 16  # differing images; the others are copies of them
STATION_IMAGES = 64  # at most, for a station alone
STATIONS = {
    "reading": "reading and decoding",
    "resize": "stretching to the model's square",
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
    dtype: Literal["float32", "bfloat16", "float16"]
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
        settings = load_experiment(NAME) if self.model == NAME else Experiment()
        return replace(
            settings,
            source=SourceConfig(kind="table", path=f"{self.data}/images.jsonl"),
            model=ModelConfig(name=self.model, dtype=self.dtype, compile=self.compile),
            diffsegmenter=replace(settings.diffsegmenter, timesteps=TIMESTEPS),
            work=WorkConfig(unit=self.unit, batch=self.batch),
        )


def main() -> None:
    args = parse_arguments()
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "parts")}
    settings["unit"] = args.unit or max(1, min(WorkConfig.unit, args.images // 4))
    with TemporaryDirectory() as folder:
        model = str(stable_diffusion_v15(Path(folder) / "model")) if args.model == "sd15" else args.model
        write_images(Path(folder) / "data", args.images)
        task = Task(**settings | {"model": model, "data": f"{folder}/data"})
        report = {part: in_own_process(PARTS[part], task) for part in args.parts}
    report |= conclude(report, classes_per_image(args.images))
    report |= {"settings": settings, "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    Console(width=WIDTH).print(table(report))
    if args.json:
        write_report(args.json, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd15", help="sd15, shapes, or a checkpoint's folder")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--unit", type=int, default=0, help="images of a shard; 0 makes four shards, or more of 256")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--batch", type=int, default=WorkConfig.batch, help="triples per U-Net forward")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=free_file, help="file for the figures")
    return parser.parse_args()


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


# The whole, from files to shards of masks.


def measure_whole(task: Task) -> dict[str, object]:
    """Rates of `generate` and, once its CAMs are there, of `refine` alone; what the machine could do at most."""
    torch.set_num_threads(task.threads)
    with TemporaryDirectory() as out:
        began = time.time()
        run_command("generate", task.model, out, task.device, task.threads, task.options)
        report: dict[str, object] = {
            "seconds": time.time() - began,
            "labelling": pace(Path(out) / "cams", task, began),
            "all": pace(Path(out) / "masks", task, began),
        }
        rmtree(Path(out) / "masks")
        began = time.time()
        run_command("refine", task.model, out, task.device, task.threads, task.options)
        report["refining"] = pace(Path(out) / "masks", task, began)
    device = torch.device(task.device)
    model = load_model(task.experiment().model, device)
    unet_flop, vae_flop = count_flop(model)
    return report | {
        "unet_flop": unet_flop,
        "vae_flop": vae_flop,
        "matmul_flops": matmul_rate(device, model.dtype),
        "machine": machine(device),
    }


def run_command(name: str, model: str, out: str, device: str, threads: int, options: Mapping[str, object]) -> None:
    """`pseudolabel NAME` on Shapes' classes, with the settings chosen for Shapes or the defaults."""
    settings = ["--config", NAME] if model == NAME else ["--model.name", model, "--vocabulary", NAME]
    flags = [text for option, value in options.items() for text in (f"--{option}", json.dumps(value).strip('"'))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "pseudolabel", name, *settings, *flags, "--out", out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def pace(folder: Path, task: Task, began: float) -> dict[str, float]:
    """Images per second between the ends of the first and the last shard, or of the only one since the start."""
    ends = sorted(path.stat().st_mtime for path in folder.glob(f"{folder.name}-*.json"))
    if len(ends) != math.ceil(task.images / task.unit):
        raise SystemExit(f"{len(ends)} shards in {folder}")
    rate = (task.images - task.unit) / (ends[-1] - ends[0]) if len(ends) > 1 else task.images / (ends[0] - began)
    return {"first_shard_seconds": ends[0] - began, "images_per_second": rate}


# The stations, one after the other, with nothing beside them.


def measure_stations(task: Task) -> dict[str, object]:
    """Seconds per image of each station; reading, stretching and writing have one thread."""
    torch.set_num_threads(task.threads)
    with TemporaryDirectory() as out:
        experiment = task.experiment()
        model = load_model(experiment.model, torch.device(task.device))
        source = open_source(experiment.source, VOCABULARY)
        peak, clock = Peak(model.device), Clock(model.device)
        with clock.part("reading"):
            samples = [source.read(entry) for entry in source.entries[:STATION_IMAGES]]
        if task.compile or task.device != "cpu":
            label(experiment, model, samples, Clock(model.device))  # compiles, and sets up a GPU's libraries
        cams = label(experiment, model, samples, clock)
        with clock.part("writing"):
            members = [(one.key, encode(one, own, "cams", VOCABULARY)) for one, own in zip(samples, cams, strict=True)]
            with Folder(out).write("cams.tar") as file:
                TAR.write(file, members)
    return {
        "seconds_per_image": {station: seconds / len(samples) for station, seconds in clock.seconds.items()},
        "peak_bytes": peak.bytes(),
    }


def label(experiment: Experiment, model: DiffusionModel, samples: Sequence[Sample], clock: Clock) -> list[ScoreMaps]:
    """What the labelling stage does with samples, one station after the other."""
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
        weights = torch.stack([one.weights for one in tokens])
    noise = torch.stack([draw_noise(0, "noise", sample.key, 1, model.latent_shape) for sample in samples])
    method, maps = Clocked(model, experiment.diffsegmenter, clock), []
    for batch, count in static_batches(range(len(pairs)), pairs_together):
        images = torch.tensor([pairs[number][0] for number in batch])
        with clock.part("unet"):
            made = method(latents[images], noise[images], embeddings[list(batch)], weights[list(batch)])
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
        released(model, experiment.diffsegmenter, [sample.image], NAMES[:1], noise, clock)
        seconds = time.perf_counter() - began
    by_class = seconds - clock.seconds["vae"]
    return {"seconds": seconds, "seconds_per_image": seconds + (classes_per_image(task.images) - 1) * by_class}


PARTS = {"whole": measure_whole, "stations": measure_stations, "released": measure_released}


# What it comes to.


def conclude(report: dict, classes: float) -> dict[str, float]:
    """Figures that take several parts; of those that were not measured there are none."""
    if "whole" not in report:
        return {}
    whole = report["whole"]
    rate = whole["all"]["images_per_second"]
    flop = whole["vae_flop"] + classes * len(TIMESTEPS) * whole["unet_flop"]
    conclusion = {
        "images_per_second": rate,
        "flop_per_image": flop,
        "share_of_matmul": rate * flop / whole["matmul_flops"],
        "train_aug_minutes": TRAIN_AUG / rate / 60,
    }
    if "released" in report:
        conclusion["speedup"] = rate * report["released"]["seconds_per_image"]
    return conclusion


def table(report: dict) -> Table:
    settings = report["settings"]
    compiled = ", compiled" if settings["compile"] else ""
    shown = Table(title=f"{settings['dtype']} on {settings['device']}, batches of {settings['batch']}{compiled}")
    shown.add_column("")
    for heading in ("s per image", "images/s", "of matmul %"):
        shown.add_column(heading, justify="right")
    for title, seconds, flop in rows(report):
        share = f"{100 * flop / seconds / report['whole']['matmul_flops']:.1f}" if flop and "whole" in report else ""
        shown.add_row(title, f"{seconds:.3g}", f"{1 / seconds:.3g}", share)
    if "whole" in report:
        shown.caption = (
            f"{TRAIN_AUG} images take {report['train_aug_minutes']:.3g} minutes; "
            f"a matrix product reaches {report['whole']['matmul_flops'] / 1e12:.3g} TFLOP/s"
        )
    return shown


def rows(report: dict) -> list[tuple[str, float, float]]:
    """Title, seconds per image and FLOP per image where they are counted."""
    found: list[tuple[str, float, float]] = []
    whole, stations = report.get("whole", {}), report.get("stations", {"seconds_per_image": {}})
    flop = {"vae": whole["vae_flop"], "unet": report["flop_per_image"] - whole["vae_flop"]} if whole else {}
    for station, seconds in stations["seconds_per_image"].items():
        found.append((STATIONS[station], seconds, flop.get(station, 0)))
    if whole:
        found.append(("DenseCRF alone, shards to shards", 1 / whole["refining"]["images_per_second"], 0))
        found.append(("labelling in the whole", 1 / whole["labelling"]["images_per_second"], report["flop_per_image"]))
        found.append(("the whole", 1 / whole["all"]["images_per_second"], report["flop_per_image"]))
    if "released" in report:
        found.append(("the released way, maps alone", report["released"]["seconds_per_image"], 0))
    return found


if __name__ == "__main__":
    main()
