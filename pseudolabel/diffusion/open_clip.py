"""OpenCLIP's text encoder, that of Stable Diffusion 2.x and the second one of SDXL, in the names of transformers."""

import re
from typing import Any

import torch

from pseudolabel.diffusion.file_layout import Tensors, clip_config, count

NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")


def convert_open_clip(tensors: Tensors, drops_last: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors of `CLIPTextModel`, and its configuration.

    Args:
        tensors: in OpenCLIP's names.
        drops_last: leave out the last layer and the projection, as Stable Diffusion 2.x does.
    """
    last = count(tensors, r"transformer\.resblocks\.") - 1
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name in NAMES:
            found[NAMES[name]] = tensor
        elif match := LAYER.fullmatch(name):
            if not (drops_last and int(match[1]) == last):
                found |= _of_layer(f"encoder.layers.{match[1]}", match[2], tensor)
        elif name == "text_projection" and not drops_last:
            found["text_projection.weight"] = tensor.T.contiguous()
    config = clip_config(found) | {"hidden_act": "gelu"}
    if "text_projection.weight" in found:
        config["projection_dim"] = found["text_projection.weight"].shape[0]
    return found, config


def _of_layer(layer: str, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    if name.startswith("attn.in_proj_"):  # queries, keys and values in one
        kind = name.removeprefix("attn.in_proj_")
        return {f"{layer}.self_attn.{part}_proj.{kind}": own for part, own in zip("qkv", tensor.chunk(3), strict=True)}
    module, _, kind = name.rpartition(".")
    return {f"{layer}.{IN_LAYER[module]}.{kind}": tensor}
