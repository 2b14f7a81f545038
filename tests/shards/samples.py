"""Mask shards as `pseudolabel refine` writes them, small enough to make many."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.io.tar import Members, write_tar
from pseudolabel.records import LabelMap
from pseudolabel.shards.sample import encode_mask
from tests.shards.runs import write_run

LABELS = (0, 1, 20, 255)  # what `convert("L")` would turn into 0, 38, 52, 220


def draw_sample(number: int) -> Members:
    """A sample of its own size, all of whose labels are `LABELS`."""
    rng = np.random.default_rng(number)
    height, width = 20 + number % 7, 24 + number % 5
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "JPEG")
    labels = rng.choice(np.array(LABELS, np.uint8), (height, width))
    key = name(number)
    return encode_mask(buffer.getvalue(), LabelMap(key, labels), {"key": key})


def tiny_sample(number: int) -> Members:
    """Distinct members that are not images."""
    return {"jpg": b"image %d" % number, "png": b"mask %d" % number, "json": b"{}"}


def name(number: int) -> str:
    return f"image_{number:06d}"


def numbered(counts: Sequence[int], sample=tiny_sample) -> list[list[tuple[str, Members]]]:
    """Samples of shards, numbered through."""
    ends = np.cumsum([0, *counts])
    return [[(name(number), sample(number)) for number in range(*bounds)] for bounds in pairwise(ends)]


def write_masks(folder: Path, counts: Sequence[int], sample=draw_sample) -> Path:
    """A finished run of mask shards with this many samples in each."""
    write_run(folder, "masks", numbered(counts, sample))
    return folder


def write_shard(path: Path, samples: Mapping[str, Members] | Sequence[tuple[str, Members]]) -> Path:
    """A shard without a run."""
    pairs = samples.items() if isinstance(samples, Mapping) else samples
    with path.open("wb") as file:
        write_tar(file, pairs)
    return path


def write_index(folder: Path, counts: Mapping[str, int]) -> None:
    shards = [{"shard": shard, "samples": count} for shard, count in counts.items()]
    (folder / "index.json").write_text(json.dumps({"shards": shards}))
