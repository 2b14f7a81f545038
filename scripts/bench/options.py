"""Options that several benchmarks take."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from pseudolabel.config import WorkConfig
from pseudolabel.io.shipped import NAME
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import stable_diffusion_v15

Dtype = Literal["float32", "bfloat16", "float16"]
PROMPTS = [entry.prompt for entry in load_vocabulary(NAME).classes]
COMMON: dict[str, dict[str, Any]] = {
    "model": {"default": "sd15", "help": "sd15 (its architecture, random weights), shapes, or a checkpoint's folder"},
    "classes": {"type": int, "choices": range(1, len(PROMPTS) + 1), "default": 2, "help": "classes per image"},
    "image-size": {"type": int, "default": 0, "help": "side in pixels; 0 is the model's own"},
    "device": {"default": "cpu"},
    "dtype": {"choices": ["float32", "bfloat16", "float16"], "default": "float32"},
    "threads": {"type": int, "default": torch.get_num_threads(), "help": "of torch on the CPU"},
    "batch": {"type": int, "default": WorkConfig.batch, "help": "rows per U-Net forward pass"},
    "repeat": {"type": int, "default": 1, "help": "runs, of which the fastest counts"},
    "seed": {"type": int, "default": 0},
}


def add_common(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for name in names:
        parser.add_argument(f"--{name}", **COMMON[name])


def whole_numbers(text: str) -> list[int]:
    """The value of an option that takes several, with commas."""
    return [int(number) for number in text.split(",")]


@contextmanager
def checkpoint(model: str) -> Iterator[str]:
    """The value of `--model` as `model.name` takes it; `sd15` is written to a temporary folder (2 GB)."""
    if model != "sd15":
        yield model
        return
    with TemporaryDirectory() as folder:
        yield str(stable_diffusion_v15(Path(folder)))
