"""A checkpoint in one `.safetensors` file, in the layout that A1111, ComfyUI and Civitai use."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pseudolabel.diffusion.clip_tokenizer import clip_tokenizer
from pseudolabel.diffusion.file_layout import (
    CLIP,
    OPEN_CLIP,
    UNET,
    V1,
    V2,
    VAE,
    XL,
    Kind,
    Tensors,
    below,
    clip_config,
    find_kind,
    unet_config,
    vae_config,
)
from pseudolabel.diffusion.open_clip import convert_open_clip
from pseudolabel.diffusion.parts import Parts
from pseudolabel.diffusion.supported import SUPPORTED
from pseudolabel.errors import ModelError
from pseudolabel.io.weight_file import explain
from pseudolabel.io.weights import SUFFIX, weights_digest

M = TypeVar("M", bound=nn.Module)

# Labelling only encodes, and the averages of the weights over training are for more training.
UNREAD = (f"{VAE}decoder.", f"{VAE}post_quant_conv.", "model_ema.")
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
PREDICTIONS = {V1: "epsilon", V2: "v_prediction", XL: "epsilon"}
SIDES = {V1: 64, V2: 64, XL: 128}  # of the latents
SIDE_OF_V = 96  # those of Stable Diffusion 2.x that predict v are of 768 pixels
OPEN_CLIP_PAD = "!"


def is_single_file(name: str) -> bool:
    """Whether a checkpoint is a file, not a folder or a name on the hub."""
    return os.path.isfile(name)


def read_file(path: str, what: str, dtype: torch.dtype, prediction: str) -> Parts:
    """The parts of a checkpoint in a file; configurations follow from its tensors, and no network is needed.

    Args:
        path: of the file.
        what: the checkpoint and its setting, for messages.
        dtype: of the weights; SDXL's VAE stays in float32.
        prediction: what the U-Net predicts; empty is that of most checkpoints of the kind.

    Raises:
        ModelError: if it is no safetensors file, or not complete, or of another model.
    """
    tensors = _read(path, what)
    kind = find_kind(tensors)
    if kind is None and any("lora" in name for name in tensors):
        raise ModelError(f"{_cannot(what)} is a LoRA: give it as `model.lora`, and a checkpoint as `model.name`")
    if kind is None:
        raise ModelError(
            f"{_cannot(what)} holds no complete checkpoint of a supported kind: {_sample(tensors)}. Supported are "
            f"{SUPPORTED}"
        )
    try:
        return _build(tensors, kind, what, dtype, prediction or PREDICTIONS[kind])
    except (KeyError, StopIteration) as error:  # a tensor from which a size would follow
        problem = f"looks like {kind}, but is not complete: it has no {error}"
        raise ModelError(f"{_cannot(what)} {problem}; {_FIX}") from error


def file_digest(path: str) -> str:
    """Digest of the tensors of a file that are read."""
    return weights_digest(path, without=UNREAD)


def file_schedule(path: str, prediction: str) -> dict[str, Any]:
    """Configuration of the noise schedule of a checkpoint in a file."""
    with safe_open(path, framework="pt") as tensors:
        kind = find_kind(tensors.keys())
    return SCHEDULE | {"prediction_type": prediction or PREDICTIONS[kind or V1]}


_FIX = "download or copy it again, or convert it with the VAE and the text encoder"


def _cannot(what: str) -> str:
    return f"cannot load {what}: the file"


def _read(path: str, what: str) -> dict[str, torch.Tensor]:
    if not path.endswith(SUFFIX):
        raise ModelError(
            f"{_cannot(what)} is no {SUFFIX} file; others may hold programs that run when they are read. Convert it "
            "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True)['state_dict'], NEW)"
        )
    if problem := explain(path):
        raise ModelError(f"{_cannot(what)} {problem}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.startswith(UNREAD)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{_cannot(what)} cannot be read: {error}") from error


def _sample(tensors: Mapping[str, torch.Tensor]) -> str:
    names = sorted(tensors)
    return f"its {len(names):,} tensors begin with {', '.join(names[:3])}" if names else "it has no tensors"


def _build(tensors: Tensors, kind: Kind, what: str, dtype: torch.dtype, prediction: str) -> Parts:
    # SDXL's VAE overflows in float16.
    tensors = {
        name: tensor.to(torch.float32 if kind == XL and name.startswith(VAE) else dtype)
        for name, tensor in tensors.items()
    }
    unet = _unet(tensors, kind, what, SIDE_OF_V if kind == V2 and prediction == "v_prediction" else SIDES[kind])
    text = _clip(tensors, kind, what) if kind in CLIP else _open_clip(tensors, V2, what, CLIPTextModel)
    text_2 = _open_clip(tensors, XL, what, CLIPTextModelWithProjection) if kind == XL else None
    return Parts(
        unet=unet,
        vae=_vae(tensors, kind, what),
        text_encoder=text,
        tokenizer=clip_tokenizer() if kind in CLIP else clip_tokenizer(OPEN_CLIP_PAD),
        schedule=SCHEDULE | {"prediction_type": prediction},
        text_encoder_2=text_2,
        tokenizer_2=clip_tokenizer(OPEN_CLIP_PAD) if kind == XL else None,
    )


def _unet(tensors: Tensors, kind: Kind, what: str, side: int) -> UNet2DConditionModel:
    config = unet_config(below(tensors, UNET), kind)
    with init_empty_weights():
        unet = UNet2DConditionModel(sample_size=side, **config)
    return _fill(unet, convert_ldm_unet_checkpoint(dict(tensors), config), what, "U-Net")


def _vae(tensors: Tensors, kind: Kind, what: str) -> AutoencoderKL:
    config = vae_config(below(tensors, VAE), kind)
    with init_empty_weights():
        vae = AutoencoderKL(**config)
    del vae.decoder, vae.post_quant_conv
    return _fill(vae, convert_ldm_vae_checkpoint(dict(tensors), config), what, "VAE")


def _clip(tensors: Tensors, kind: Kind, what: str) -> CLIPTextModel:
    own = below(tensors, CLIP[kind])
    own.pop("embeddings.position_ids", None)  # 0, 1, 2, ...
    with init_empty_weights():
        text = CLIPTextModel(CLIPTextConfig(**clip_config(own)))
    return _fill(text, own, what, "text encoder")


def _open_clip(tensors: Tensors, kind: Kind, what: str, model: type[M]) -> M:
    own, config = convert_open_clip(below(tensors, OPEN_CLIP[kind]), drops_last=kind == V2)
    if kind == XL:
        own = {name if name.startswith("text_projection") else f"text_model.{name}": own[name] for name in own}
    with init_empty_weights():
        text = model(CLIPTextConfig(**config))
    return _fill(text, own, what, "text encoder of OpenCLIP")


def _fill(model: M, tensors: Tensors, what: str, part: str) -> M:
    """The model with these weights, all of which it must have, and no others."""
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        problem = f"lacks {len(missing):,} tensors of its {part}, the first is {missing[0]}"
        raise ModelError(f"{_cannot(what)} {problem}; {_FIX}")
    others = [name for name, tensor in tensors.items() if name not in wanted or wanted[name].shape != tensor.shape]
    if others:
        raise ModelError(
            f"{_cannot(what)} has {len(others):,} tensors that no {part} of Stable Diffusion 1.x, 2.x or XL has, "
            f"the first is {others[0]}. Supported are {SUPPORTED}"
        )
    model.load_state_dict(dict(tensors), assign=True)
    return model
