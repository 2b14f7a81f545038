"""Another VAE than the checkpoint's own: one of the same latents, or a tiny approximation of it, such as taesd."""

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import SafetensorError

from pseudolabel.errors import ModelError
from pseudolabel.io.hub import Hub
from pseudolabel.io.weights import weights_digest

STEM = "diffusion_pytorch_model"
KINDS = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}


def load_vae(name: str, dtype: torch.dtype, hub: Hub) -> AutoencoderKL | AutoencoderTiny:
    """A VAE without its decoder.

    Args:
        name: folder or hub id, with `config.json` and safetensors weights of `AutoencoderKL` or `AutoencoderTiny`.
        dtype: of its weights.
        hub: access to the hub.

    Raises:
        ModelError: if it cannot be loaded, or is of another class.
    """
    what = f"the VAE '{name}' (`model.vae`)"
    access = hub.reach(name, what, "config.json")
    try:
        kind = AutoencoderKL.load_config(name, **access.options).get("_class_name")
        if kind not in KINDS:
            raise ModelError(f"cannot use {what}: it is a {kind}, not {' or '.join(KINDS)}")
        vae: Any = KINDS[kind].from_pretrained(name, torch_dtype=dtype, use_safetensors=True, **access.options)
    except (OSError, ValueError, SafetensorError) as error:
        hint = "give a folder or hub id with config.json and safetensors weights, such as madebyollin/taesd"
        raise ModelError(f"cannot load {what}: {hint}.\n{type(error).__name__}: {error}") from error
    del vae.decoder
    if isinstance(vae, AutoencoderKL):
        del vae.post_quant_conv
    return vae


def vae_digest(name: str) -> str:
    """Digest of the weights that encode."""
    return weights_digest(name, stem=STEM, without=("decoder.", "post_quant_conv."))
