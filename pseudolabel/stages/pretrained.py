"""Loading the diffusion model from Python."""

import os
from typing import Any

import torch

from pseudolabel.config import Experiment
from pseudolabel.diffusion.load import load_model as load
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SettingError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.hub import Hub
from pseudolabel.runtime.rank import current_rank


def load_model(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    image_size: int = 0,
    prediction: str = "auto",
    vae: str | os.PathLike[str] = "",
    lora: str | os.PathLike[str] = "",
    lora_scale: float = 1.0,
    compile: bool = False,
) -> DiffusionModel:
    """Load a frozen Stable Diffusion 1.x or 2.x, SDXL or SSD-1B from safetensors files.

    Args:
        name: hub id, folder in diffusers' layout, or single safetensors file; or `shapes` or `shapes_standard`, which
            ship.
        device: such as `cuda`; None is the device that Accelerate gives this process.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`: bfloat16 on CUDA devices that have it, float16 on other
            CUDA devices, bfloat16 on processors that are faster with it, float32 elsewhere.
        revision: branch, tag or commit on the hub; None is `main`.
        variant: file variant on the hub, such as `fp16`.
        token: for gated and private checkpoints; None is the token of `hf auth login`.
        local_files_only: use only the local cache.
        image_size: side in pixels of the square that images are stretched to; 0 is the checkpoint's own.
        prediction: what the U-Net predicts, `epsilon` or `v_prediction`; `auto` is what the checkpoint says, and for a
            single file what most of its kind predict.
        vae: folder or hub id of another VAE; a tiny one, such as `madebyollin/taesd`, is fast and approximate.
        lora: a LoRA's safetensors file, whose changes are added to the weights.
        lora_scale: factor on these changes.
        compile: compile the residual blocks and feed-forward layers, for many images on CUDA devices.

    Raises:
        ModelError: if it cannot be loaded, or is none of these, or not complete.
        SettingError: if a value is out of range.
    """
    settings = model_settings(name, dtype, revision, variant)
    settings |= {"model.image_size": image_size, "model.compile": compile, "model.prediction": prediction}
    settings |= {"model.vae": os.fspath(vae), "model.lora": os.fspath(lora), "model.lora_scale": lora_scale}
    return load(open_experiment(Experiment(), settings).model, find_device(device), Hub(token, local_files_only))


def model_settings(name: str, dtype: str | torch.dtype, revision: str | None, variant: str | None) -> dict[str, Any]:
    """A model's settings by dotted name."""
    return {
        "model.name": name,
        "model.dtype": str(dtype).removeprefix("torch."),
        "model.revision": revision or "main",
        "model.variant": variant or "",
    }


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of this name; for None the device that Accelerate gives this process.

    Raises:
        SettingError: if there is no such device here.
    """
    if device is None:
        return current_rank().device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"there is no device '{device}' here: {error}") from error
