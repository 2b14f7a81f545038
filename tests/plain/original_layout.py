"""Checkpoints in one file, from parts in diffusers' layout: the names of the first releases, written out by hand."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

Tensors = dict[str, torch.Tensor]


def write_single_file(
    path: Path,
    unet: nn.Module,
    vae: nn.Module,
    text: nn.Module,
    text_2: nn.Module | None = None,
    *,
    open_clip: bool = False,
) -> Path:
    """A checkpoint's file: OpenCLIP's names for the text encoder of Stable Diffusion 2.x, and SDXL's for two."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in unet_names(unet).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in vae_names(vae).items()}
    if text_2 is not None:
        tensors |= {f"conditioner.embedders.0.transformer.{name}": own for name, own in clip_names(text).items()}
        tensors |= {f"conditioner.embedders.1.model.{name}": own for name, own in open_clip_names(text_2).items()}
    elif open_clip:
        tensors |= {f"cond_stage_model.model.{name}": own for name, own in open_clip_names(text, extra=True).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.{name}": own for name, own in clip_names(text).items()}
        count = text.config.max_position_embeddings
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(count)[None]
    tensors["alphas_cumprod"] = torch.ones(1000)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
OPEN_CLIP = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def unet_names(unet: nn.Module) -> Tensors:
    layers = unet.config.layers_per_block
    return {unet_name(name, layers, unet): tensor for name, tensor in unet.state_dict().items()}


def unet_name(name: str, layers: int, unet: nn.Module) -> str:
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    part, *rest = name.split(".")
    if part == "mid_block":
        place = f"middle_block.{1 if rest[0] == 'attentions' else 2 * int(rest[1])}"
        return f"{place}.{inner(rest[0], '.'.join(rest[2:]))}"
    block, sort, number, tail = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    if part == "down_blocks":
        if sort == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{kind}"
        return f"input_blocks.{(layers + 1) * block + number + 1}.{int(sort == 'attentions')}.{inner(sort, tail)}"
    if sort == "upsamplers":
        attends = "CrossAttn" in unet.config.up_block_types[block]
        return f"output_blocks.{(layers + 1) * block + layers}.{2 if attends else 1}.conv.{kind}"
    return f"output_blocks.{(layers + 1) * block + number}.{int(sort == 'attentions')}.{inner(sort, tail)}"


def inner(sort: str, tail: str) -> str:
    if sort == "attentions":
        return tail
    module, _, kind = tail.rpartition(".")
    return f"{RESNET[module]}.{kind}"


def vae_names(vae: nn.Module) -> Tensors:
    last = len(vae.config.block_out_channels) - 1
    named: Tensors = {}
    for name, tensor in vae.state_dict().items():
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = name.replace("to_out.0", "proj_out").replace("to_q", "q").replace("to_k", "k").replace("to_v", "v")
            tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor  # a convolution of 1 x 1
        named[name] = tensor
    return named


def clip_names(text: nn.Module) -> Tensors:
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.state_dict().items()}


def open_clip_names(text: nn.Module, extra: bool = False) -> Tensors:
    """OpenCLIP's names; with `extra`, a last layer and a projection that Stable Diffusion 2.x does not read."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}
    named = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        named["text_projection"] = state["text_projection.weight"].T
    layers = text.config.num_hidden_layers
    for number in range(layers + extra):
        own = f"encoder.layers.{min(number, layers - 1)}."
        block = f"transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            parts = [state[f"{own}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            named[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
            for theirs, ours in OPEN_CLIP.items():
                named[f"{block}{theirs}.{kind}"] = state[f"{own}{ours}.{kind}"]
    if extra:
        named["text_projection"] = torch.zeros(4, 4)
    return named
