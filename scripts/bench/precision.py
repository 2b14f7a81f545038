"""How far masks made in half precision agree with those made in float32.

    python -m scripts.bench precision --model shapes --images 40 --json precision.json
    python -m scripts.bench precision --image-size 256     # Stable Diffusion v1.5's architecture, random weights
    python -m scripts.bench precision --images 64 --device cuda

Shapes images go through `generate` once in each precision, with the model's own settings: score maps, DenseCRF, masks.
The same noise is drawn each time. With random weights maps are noise themselves, with labels next to each other
everywhere; that is the hardest case, not a likely one.
"""

import argparse
import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from pseudolabel.io.tar import Members, read_tar
from pseudolabel.shapes.dataset import write_shapes

from .commands import run_on_shapes
from .options import checkpoint
from .report import table

COMMON = ("model", "image-size", "device", "threads", "seed")
REFERENCE = "float32"
HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Labelled:
    """What a run made of an image: float32 (C, h, w) maps and uint8 (H, W) labels."""

    maps: np.ndarray
    labels: np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(seed=8)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 50, 100, 150])
    parser.add_argument("--dtypes", nargs="+", choices=HALF, default=list(HALF))


def measure(args: argparse.Namespace) -> dict:
    with checkpoint(args.model) as model, TemporaryDirectory() as data:
        write_shapes(Path(data), train=0, val=args.images, seed=args.seed)
        reference, *others = (run(args, model, data, dtype) for dtype in (REFERENCE, *args.dtypes))
    return {"agreement": {dtype: compare(other, reference) for dtype, other in zip(args.dtypes, others, strict=True)}}


def run(args: argparse.Namespace, model: str, data: str, dtype: str) -> dict[str, Labelled]:
    """Maps and labels of every image by its key."""
    options = {
        "source.path": data,
        "source.split": "val",
        "model.dtype": dtype,
        "model.image_size": args.image_size,
        "diffsegmenter.timesteps": args.timesteps,
    }
    with TemporaryDirectory() as out:
        run_on_shapes("generate", model, out, args.device, args.threads, options)
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


def tables(report: dict) -> list[str]:
    settings = report["settings"]
    return [
        table(
            f"{settings['model']} on {settings['device']}, {settings['images']} images, beside float32",
            ["", "equal pixels %", "in the worst image %", "mean map difference", "largest"],
            [
                [
                    dtype,
                    *(f"{100 * row[name]:.3f}" for name in ("equal_pixels", "worst_image")),
                    *(f"{row[name]:.1e}" for name in ("mean_map_difference", "largest_map_difference")),
                ]
                for dtype, row in report["agreement"].items()
            ],
        )
    ]
