"""LoRA: low-rank changes of a checkpoint's weights (Hu et al. 2022), added once when the checkpoint is loaded.

W <- W + scale * alpha / r * B A, with A (r, in), B (out, r) from a file in the names of kohya's scripts, which Civitai
has, or in those of diffusers and PEFT. Fusing by diffusers itself leaves out text encoders of transformers 5.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pseudolabel.errors import ModelError
from pseudolabel.io.weight_file import explain
from pseudolabel.io.weights import SUFFIX

Models = Mapping[str, nn.Module | None]
"""The parts that a LoRA may change by name: `unet`, `text_encoder`, `text_encoder_2`."""

KOHYA = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
# What the ends of names mean: the factors A and B, and alpha.
ROLES = {
    ".lora_down.weight": "down",
    ".lora_A.weight": "down",
    ".lora.down.weight": "down",
    ".lora_linear_layer.down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_B.weight": "up",
    ".lora.up.weight": "up",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
OLD_PROCESSOR = re.compile(r"\.processor\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight$")
TEXT_MODEL = "text_model_"  # in some names of a text encoder's layers


@dataclass
class Change:
    """What a file says of one layer.

    Attributes:
        name: the first of its tensors, for messages.
        down, up, alpha: A, B and alpha; without alpha the change is B A.
    """

    name: str
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: torch.Tensor | None = None

    def matrix(self, shape: torch.Size) -> torch.Tensor:
        """The change of a weight of this shape, float32.

        Raises:
            ValueError: if it does not fit.
        """
        if self.down is None or self.up is None:
            raise ValueError("it lacks one of its two factors")
        down, up = self.down.float(), self.up.float()
        rank = down.shape[0]
        product = up.flatten(1) @ down.flatten(1)
        if product.numel() != shape.numel() or up.shape[0] != shape[0]:
            own = f"{up.shape[0]} x {down.flatten(1).shape[1]}"
            raise ValueError(f"its change is of {own}, the layer's weight of {' x '.join(map(str, shape))}")
        return product.view(shape) * (1.0 if self.alpha is None else self.alpha.item() / rank)


def fuse_lora(models: Models, path: str, scale: float, what: str) -> None:
    """Add a LoRA to the weights of a checkpoint.

    Args:
        models: the parts, which are changed in place.
        path: a safetensors file.
        scale: factor on the change; 1 is the strength that it was trained with.
        what: the setting that names the file, for messages.

    Raises:
        ModelError: if the file cannot be read, or one of its tensors fits no layer.
    """
    changes = read_changes(_read(path, what), what)
    layers = {name: _layers(model) for name, model in models.items() if model is not None}
    for (part, layer), change in changes.items():
        own = layers.get(part, {})
        module = own.get(layer) or own.get(_of_first_release(layer, models["unet"]))
        if module is None:
            raise ModelError(
                f"{what}: '{change.name}' changes no layer of this checkpoint; a LoRA fits checkpoints of the kind "
                "that it was trained on, such as Stable Diffusion 1.5, 2.1 or SDXL"
            )
        try:
            changed = module.weight.data.float() + scale * change.matrix(module.weight.shape)
            module.weight.data = changed.to(module.weight.dtype)  # rounded once
        except ValueError as error:
            raise ModelError(f"{what}: '{change.name}' does not fit this checkpoint: {error}") from error


def read_changes(tensors: Mapping[str, torch.Tensor], what: str) -> dict[tuple[str, str], Change]:
    """The changes of a file by part and layer; a layer's name has `_` for every point.

    Raises:
        ModelError: if there are none, or one is of another kind, such as DoRA, LoHa or LoKr.
    """
    changes: dict[tuple[str, str], Change] = {}
    for name, tensor in tensors.items():
        place = _place(name)
        if place is None:
            raise ModelError(f"{what}: '{name}' is no factor of a LoRA in the names of kohya's scripts or of diffusers")
        part, layer, role = place
        setattr(changes.setdefault((part, layer), Change(name)), role, tensor)
    if not changes:
        raise ModelError(f"{what}: there are no tensors in it")
    return changes


def _place(name: str) -> tuple[str, str, str] | None:
    """Part, layer and role of a tensor."""
    name = OLD_PROCESSOR.sub(lambda match: f".{match[1].replace('to_out', 'to_out.0')}.lora.{match[2]}.weight", name)
    end = next((end for end in ROLES if name.endswith(end)), None)
    if end is None:
        return None
    start, role = name.removesuffix(end), ROLES[end]
    for prefix, part in KOHYA.items():
        if start.startswith(prefix):
            return part, _flat(start.removeprefix(prefix)), role
    part, _, layer = start.partition(".")
    return (part, _flat(layer), role) if part in KOHYA.values() else None


def _flat(name: str) -> str:
    return name.replace(".", "_").removeprefix(TEXT_MODEL)


def _layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {_flat(name): module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def _of_first_release(layer: str, unet: Any) -> str:
    """Diffusers' name of a layer of SDXL's attention, which kohya's scripts name as the first release does."""
    count = unet.config.layers_per_block + 1
    if match := re.match(r"input_blocks_(\d+)_1_", layer):
        number = int(match[1]) - 1
        return f"down_blocks_{number // count}_attentions_{number % count}_{layer[match.end() :]}"
    if match := re.match(r"output_blocks_(\d+)_1_", layer):
        number = int(match[1])
        return f"up_blocks_{number // count}_attentions_{number % count}_{layer[match.end() :]}"
    return re.sub(r"^middle_block_1_", "mid_block_attentions_0_", layer)


def _read(path: str, what: str) -> dict[str, torch.Tensor]:
    if not path.endswith(SUFFIX):
        raise ModelError(f"{what}: give a {SUFFIX} file; others may hold programs that run when they are read")
    try:
        if problem := explain(path):
            raise ModelError(f"{what}: the file {problem}")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{what}: the file cannot be read: {error}") from error
