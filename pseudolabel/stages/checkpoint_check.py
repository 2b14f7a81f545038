"""What `doctor` says of a checkpoint: whether it can be used, where its files are, and what a run with it costs."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from PIL import Image

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.layers import attention_layers
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import ModelError
from pseudolabel.io.shipped import NAMES
from pseudolabel.stages.doctor import GIB, Finding
from pseudolabel.stages.image_method import DiffSegmenter
from pseudolabel.stages.pretrained import load_model

ROWS = {"cpu": 1}  # per forward pass, where a full batch would take minutes
FULL_BATCH = 16
IMAGES, CLASSES = 1000, 1.5  # of the estimate; a VOC image has 1.5 classes
TIMESTEP = 100


def check_checkpoint(name: str) -> Iterator[Finding]:
    """Load a diffusion model and run DiffSegmenter on images of noise at one timestep.

    Args:
        name: as `model.name`.
    """
    yield _find_files(name)
    try:
        model = load_model(name)
    except ModelError as error:
        problem, _, details = str(error).partition("\n")
        yield Finding("loading", problem, details or "Give another checkpoint.")
        return
    yield Finding("loading", f"{model!r}, which predicts {model.prediction}")
    yield _find_attention(model)
    yield from _measure(model)


def _find_files(name: str) -> Finding:
    """Where the files are, and how large they are."""
    if name in NAMES:
        return Finding("files", "ship with the package")
    if os.path.exists(name):
        size = sum(path.stat().st_size for path in [Path(name), *Path(name).rglob("*")] if path.is_file())
        return Finding("files", f"{size / GIB:.1f} GiB in '{name}'")
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        repositories = frozenset()
    cached = [one for one in repositories if (one.repo_type, one.repo_id) == ("model", name)]
    if not cached:
        return Finding("files", "not in the local cache; loading downloads them")
    return Finding("files", f"{cached[0].size_on_disk / GIB:.1f} GiB in the local cache, {cached[0].repo_path}")


def _find_attention(model: DiffusionModel) -> Finding:
    """The sides of the grids at which attention can be read."""
    layers = attention_layers(model.unet, model.vae_stride)
    found = []
    for kind in ("cross", "self"):
        sides = {model.image_size // layer.stride for layer in layers if layer.kind == kind}
        found.append(f"{kind}-attention {', '.join(f'{side} x {side}' for side in sorted(sides, reverse=True))}")
    return Finding("grids", "; ".join(found))


def _measure(model: DiffusionModel) -> Iterator[Finding]:
    """Memory and time of a batch, and what they mean for a run."""
    rows = ROWS.get(model.device.type, FULL_BATCH)
    method = DiffSegmenter(model, timesteps=[TIMESTEP], batch=rows)
    rng = np.random.default_rng(0)
    shape = (rows, model.image_size, model.image_size, 3)
    images = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, shape, dtype=np.uint8)]
    try:
        if model.device.type == "cuda":
            list(method(images, labels=["dog"]))  # the first pass chooses kernels
        started = time.perf_counter()
        list(method(images, labels=["dog"]))
    except torch.OutOfMemoryError:
        hint = "Give `work.batch` 4, or fewer still, and `model.dtype` bfloat16."
        yield Finding("memory", f"too little for {rows} rows at once", hint, is_optional=True)
        return
    seconds = (time.perf_counter() - started) / rows
    yield Finding(
        "memory",
        f"{_peak(model.device) / GIB:.1f} GiB with the weights, for {rows} {'rows' if rows > 1 else 'row'} at once",
    )
    timesteps = len(DiffSegmenterConfig().timesteps)
    whole = timedelta(seconds=round(seconds * timesteps * CLASSES * IMAGES))
    yield Finding(
        "time",
        f"{seconds:.2g} s per class and timestep; {IMAGES:,} images of {CLASSES} classes at {timesteps} timesteps take "
        f"about {whole} on this device, and DenseCRF in addition",
    )


def _peak(device: torch.device) -> int:
    """The largest memory of this process so far, in bytes, on a CUDA device or else in the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
