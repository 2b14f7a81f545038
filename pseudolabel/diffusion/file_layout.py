"""Configurations of a checkpoint's parts, derived from the shapes of the tensors in its file.

The file is in the layout of the first releases, which A1111, ComfyUI and Civitai use: the U-Net's names begin with
`model.diffusion_model.`, the VAE's with `first_stage_model.`. It holds no configuration. Sizes follow from shapes; what
shapes do not tell is the same in all checkpoints of a kind: the number of heads, the activation, the VAE's scale.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

Tensors = Mapping[str, torch.Tensor]
Kind = Literal["Stable Diffusion 1.x", "Stable Diffusion 2.x", "SDXL"]
V1: Kind = "Stable Diffusion 1.x"
V2: Kind = "Stable Diffusion 2.x"
XL: Kind = "SDXL"

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Text encoders by kind: CLIP in the names of transformers, or OpenCLIP in its own.
CLIP = {V1: "cond_stage_model.transformer.text_model.", XL: "conditioner.embedders.0.transformer.text_model."}
OPEN_CLIP = {V2: "cond_stage_model.model.", XL: "conditioner.embedders.1.model."}
EMBEDDING = "token_embedding.weight"
HEADS, HEAD_WIDTH = 8, 64  # of Stable Diffusion 1.x, heads of each layer; in the others and in CLIP, a head's width
SCALES = {V1: 0.18215, V2: 0.18215, XL: 0.13025}
TIME_WIDTH = 256  # of each of the sizes that SDXL is told


def find_kind(names: Iterable[str]) -> Kind | None:
    """What a file's tensors are of, or None if it is none of these checkpoints."""
    names = set(names)
    if OPEN_CLIP[XL] + EMBEDDING in names:
        return XL
    if OPEN_CLIP[V2] + EMBEDDING in names:
        return V2
    return V1 if f"{CLIP[V1]}embeddings.{EMBEDDING}" in names else None


def below(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that follows a prefix, a regular expression; 0 if none does."""
    found = [int(match[1]) for name in names if (match := re.match(rf"{pattern}(\d+)\.", name))]
    return max(found, default=-1) + 1


def unet_config(tensors: Tensors, kind: Kind) -> dict[str, Any]:
    """Of `UNet2DConditionModel`, from the tensors below `model.diffusion_model.`."""
    blocks = count(tensors, r"input_blocks\.")
    levels = 1 + sum(f"input_blocks.{number}.0.op.weight" in tensors for number in range(blocks))
    layers = blocks // levels - 1  # a level's blocks are its layers and a downsampler, or the first convolution
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    channels = [tensors[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] for first in firsts]
    depths = [count(tensors, rf"input_blocks\.{first}\.1\.transformer_blocks\.") for first in firsts]
    middle = count(tensors, r"middle_block\.1\.transformer_blocks\.")  # has the depth of the deepest level
    attending = next(first for first, depth in zip(firsts, depths, strict=True) if depth)
    attention = f"input_blocks.{attending}.1."
    config = {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or 1 for depth in (*depths[:-1], depths[-1] or middle)],
        "cross_attention_dim": tensors[f"{attention}transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": HEADS if kind == V1 else [width // HEAD_WIDTH for width in channels],
        "use_linear_projection": tensors[f"{attention}proj_in.weight"].ndim == 2,
        "upcast_attention": kind == V2,
    }
    if kind != XL:
        return config
    return config | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": tensors["label_emb.0.0.weight"].shape[1],
    }


def vae_config(tensors: Tensors, kind: Kind) -> dict[str, Any]:
    """Of `AutoencoderKL`, from the tensors below `first_stage_model.`."""
    levels = count(tensors, r"encoder\.down\.")
    firsts = [tensors[f"encoder.down.{level}.block.0.conv1.weight"] for level in range(levels)]
    return {
        "block_out_channels": [first.shape[0] for first in firsts],
        "layers_per_block": count(tensors, r"encoder\.down\.0\.block\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": tensors["quant_conv.weight"].shape[0] // 2,
        "scaling_factor": SCALES[kind],
        "force_upcast": kind == XL,
    }


def clip_config(tensors: Tensors) -> dict[str, Any]:
    """Of `CLIPTextModel`, from its tensors in the names of transformers."""
    width = tensors[f"embeddings.{EMBEDDING}"].shape[1]
    return {
        "vocab_size": tensors[f"embeddings.{EMBEDDING}"].shape[0],
        "hidden_size": width,
        "num_hidden_layers": count(tensors, r"encoder\.layers\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "intermediate_size": tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "max_position_embeddings": tensors["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }
