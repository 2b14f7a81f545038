"""How far masks made in half precision agree with those made in float32.

    python scripts/bench/precision.py --model shapes --images 40 --json precision.json
    python scripts/bench/precision.py --model sd15 --image-size 256 --images 2     # its architecture, random weights
    python scripts/bench/precision.py --images 64 --device cuda

Shapes images go through `generate` once in each precision, with the model's own settings: score maps, DenseCRF, masks.
The same noise is drawn each time. With random weights maps are noise themselves, with labels next to each other
everywhere; that is the hardest case, not a likely one.
"""

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from cams import WIDTH
from generate import run_command
from meter import machine, versions
from PIL import Image
from report_file import free_file, write_report
from rich.console import Console
from rich.table import Table

from pseudolabel.io.tar import Members, read_tar
from pseudolabel.shapes.dataset import write_shapes
from tests.plain.architectures import stable_diffusion_v15

REFERENCE = "float32"
HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Task:
    """What is run in one precision; `model` is `shapes` or a checkpoint folder."""

    model: str
    data: str
    image_size: int
    timesteps: list[int]
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    threads: int


@dataclass(frozen=True)
class Labelled:
    """What a run made of an image: float32 (C, h, w) maps and uint8 (H, W) labels."""

    maps: np.ndarray
    labels: np.ndarray


def main() -> None:
    args = parse_arguments()
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    with TemporaryDirectory() as folder:
        model = str(stable_diffusion_v15(Path(folder) / "model")) if args.model == "sd15" else args.model
        write_shapes(Path(folder) / "data", train=0, val=args.images, seed=args.seed)
        common = (args.image_size, args.timesteps, args.device)
        tasks = [Task(model, f"{folder}/data", *common, dtype, args.threads) for dtype in (REFERENCE, *args.dtypes)]
        reference, *others = map(run, tasks)
    report = {
        "agreement": {dtype: compare(other, reference) for dtype, other in zip(args.dtypes, others, strict=True)},
        "settings": settings,
        "machine": machine(torch.device(args.device)),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    Console(width=WIDTH).print(table(report))
    if args.json:
        write_report(args.json, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd15", help="sd15, shapes, or a checkpoint's folder")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=0, help="side in pixels; 0 is the model's own")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 50, 100, 150])
    parser.add_argument("--dtypes", nargs="+", choices=HALF, default=list(HALF))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=free_file, help="file for the figures")
    return parser.parse_args()


def run(task: Task) -> dict[str, Labelled]:
    """Maps and labels of every image by its key."""
    options = {
        "source.path": task.data,
        "source.split": "val",
        "model.dtype": task.dtype,
        "model.image_size": task.image_size,
        "diffsegmenter.timesteps": task.timesteps,
    }
    with TemporaryDirectory() as out:
        run_command("generate", task.model, out, task.device, task.threads, options)
        cams, masks = (read_samples(Path(out) / kind) for kind in ("cams", "masks"))
    return {key: Labelled(read_maps(cams[key]), np.asarray(open_png(masks[key]))) for key in masks}


def read_samples(folder: Path) -> dict[str, Members]:
    samples: dict[str, Members] = {}
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            samples |= read_tar(file)
    return samples


def read_maps(members: Members) -> np.ndarray:
    with np.load(io.BytesIO(members["cam.npz"])) as arrays:
        return arrays["maps"].astype(np.float32)


def open_png(members: Members) -> Image.Image:
    return Image.open(io.BytesIO(members["png"]))


def compare(runs: dict[str, Labelled], reference: dict[str, Labelled]) -> dict[str, float]:
    """Over all pixels of all images, ignored ones being a label like the others; maps are in [0, 1]."""
    if runs.keys() != reference.keys():
        raise SystemExit("not the same images")
    pairs = [(runs[key], reference[key]) for key in reference]
    same = np.concatenate([(one.labels == other.labels).ravel() for one, other in pairs])
    differences = np.concatenate([np.abs(one.maps - other.maps).ravel() for one, other in pairs])
    return {
        "images": len(pairs),
        "equal_pixels": float(same.mean()),
        "worst_image": min(float((one.labels == other.labels).mean()) for one, other in pairs),
        "mean_map_difference": float(differences.mean()),
        "largest_map_difference": float(differences.max()),
    }


def table(report: dict) -> Table:
    settings = report["settings"]
    shown = Table(title=f"{settings['model']} on {settings['device']}, {settings['images']} images, beside float32")
    shown.add_column("")
    for heading in ("equal pixels %", "in the worst image %", "mean map difference", "largest"):
        shown.add_column(heading, justify="right")
    for dtype, row in report["agreement"].items():
        pixels = [f"{100 * row[name]:.3f}" for name in ("equal_pixels", "worst_image")]
        shown.add_row(dtype, *pixels, f"{row['mean_map_difference']:.1e}", f"{row['largest_map_difference']:.1e}")
    return shown


if __name__ == "__main__":
    main()
