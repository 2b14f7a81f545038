"""Loading a diffusion model: Stable Diffusion or SDXL from the hub or a folder, or the small one that ships here."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.compiling import compile_parts
from pseudolabel.diffusion.lora import fuse_lora
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.parts import Parts
from pseudolabel.diffusion.single_file import file_digest, file_schedule, is_single_file, read_file
from pseudolabel.diffusion.supported import check_index, check_model, check_schedule, is_xl, read_index
from pseudolabel.diffusion.vae import load_vae, vae_digest
from pseudolabel.errors import ModelError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.io.json_text import digest
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weight_file import explain_folder
from pseudolabel.io.weights import HALF, weights_digest
from pseudolabel.runtime.bars import library_bars
from pseudolabel.runtime.precision import gains_from_bfloat16, resolve_dtype

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
XL_WEIGHTS = WEIGHTS | {"text_encoder_2": "model"}
DECODER = ("decoder.", "post_quant_conv.")  # of the VAE, with which labelling only encodes
NO_FILE = "file named"  # in what diffusers and transformers say of a file that a folder or repository does not have
SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


log = logging.getLogger(__name__)


def load_model(config: ModelConfig, device: torch.device, hub: Hub = DEFAULT_HUB) -> DiffusionModel:
    """Load a checkpoint, frozen, from safetensors files only: a folder in diffusers' layout, or a single file.

    Raises:
        ModelError: if it is not found, not in diffusers' layout, has no safetensors, or is none of Stable Diffusion
            1.x, 2.x and XL.
    """
    dtype = resolve_dtype(config.dtype, device)
    if is_single_file(config.name):
        parts = read_file(config.name, _what(config), dtype, _prediction(config))
    else:
        parts = _read_folder(config, dtype, hub)
    if config.vae:
        vae_dtype = torch.float32 if is_xl(parts.unet) else dtype
        parts = replace(parts, vae=load_vae(config.vae, vae_dtype, hub))
    unet, vae, index = parts.unet, parts.vae, parts.index or {}
    if config.lora:
        changed = {"unet": unet, "text_encoder": parts.text_encoder, "text_encoder_2": parts.text_encoder_2}
        fuse_lora(changed, config.lora, config.lora_scale, f"`model.lora` '{config.lora}'")
    if config.dtype == "auto" and device.type == "cpu" and dtype == torch.float32:
        dtype = _quicken(parts)
    check_schedule(config.name, index, parts.schedule)
    scheduler = DDPMScheduler.from_config(parts.schedule)
    if is_xl(unet):
        _prepare_xl_vae(vae, dtype)
    model = DiffusionModel(
        vae=_frozen(vae, device),
        unet=_frozen(unet, device),
        text_encoder=_frozen(parts.text_encoder, device),
        tokenizer=parts.tokenizer,
        alphas_cumprod=scheduler.alphas_cumprod,
        prediction=_prediction(config) or scheduler.config.prediction_type,
        image_size=config.image_size or unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
        name=config.name,
        hub=hub,
        text_encoder_2=None if parts.text_encoder_2 is None else _frozen(parts.text_encoder_2, device),
        tokenizer_2=parts.tokenizer_2,
    )
    check_model(model, index)
    _check_size(model)
    _speed_up(config, model)
    return model


def _quicken(parts: Parts) -> torch.dtype:
    """Convert the parts, but for SDXL's VAE, to bfloat16 if the processor is faster with it; the U-Net's dtype."""
    if not gains_from_bfloat16(parts.unet.num_parameters()):
        return torch.float32
    log.info("`model.dtype` auto: bfloat16, which this processor computes faster than float32")
    for part in (parts.unet, parts.text_encoder, parts.text_encoder_2, None if is_xl(parts.unet) else parts.vae):
        if part is not None:
            part.bfloat16()
    return torch.bfloat16


def _prediction(config: ModelConfig) -> Any:
    """What the settings say that the U-Net predicts; empty for what the checkpoint says."""
    return "" if config.prediction == "auto" else config.prediction


def _frozen(part: Any, device: torch.device) -> Any:
    return part.to(device).eval().requires_grad_(False)


def _read_folder(config: ModelConfig, dtype: torch.dtype, hub: Hub) -> Parts:
    """The parts of a checkpoint in diffusers' layout, in a folder or on the hub."""
    folder = resolve(config.name, "diffusion")
    access = hub.reach(folder, _what(config), "unet/config.json", config.revision)
    origin: dict[str, Any] = {} if os.path.isdir(folder) else {"revision": config.revision}
    origin |= access.options
    weights = {**origin, "use_safetensors": True}
    text_2 = tokenizer_2 = None
    try:
        index = read_index(folder, **origin)
        check_index(config.name, index)
        with library_bars():
            unet = _load_part(UNet2DConditionModel, "unet", folder, config, torch_dtype=dtype, **weights)
            vae_dtype = torch.float32 if is_xl(unet) else dtype
            vae = _load_part(AutoencoderKL, "vae", folder, config, torch_dtype=vae_dtype, **weights)
            text_encoder = _load_part(CLIPTextModel, "text_encoder", folder, config, dtype=dtype, **weights)
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", **origin)
            if is_xl(unet):
                text_2 = _load_part(
                    CLIPTextModelWithProjection, "text_encoder_2", folder, config, dtype=dtype, **weights
                )
                tokenizer_2 = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2", **origin)
            schedule = DDPMScheduler.load_config(folder, subfolder="scheduler", **origin)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(_explain(config, folder, error)) from error
    del vae.decoder, vae.post_quant_conv  # labelling only encodes
    return Parts(unet, vae, text_encoder, tokenizer, schedule, text_2, tokenizer_2, index)


def _load_part(model_class: Any, part: str, folder: str, config: ModelConfig, **options: Any) -> Any:
    """A part from the files of the chosen variant; without one, from the plain files or else from those of fp16."""
    try:
        return model_class.from_pretrained(folder, subfolder=part, variant=config.variant or None, **options)
    except OSError as error:
        if config.variant or NO_FILE not in str(error):
            raise
        log.info("%s of '%s' has no plain files: those of %s are tried", part, config.name, HALF)
        try:
            return model_class.from_pretrained(folder, subfolder=part, variant=HALF, **options)
        except (OSError, ValueError):  # ValueError: of a variant that a folder does not have
            raise error from None


def _prepare_xl_vae(vae: AutoencoderKL, dtype: torch.dtype) -> None:
    """SDXL's VAE overflows in float16, as its configuration says, and its images have four times the pixels."""
    if not vae.config.force_upcast:
        nn.Module.to(vae, dtype)  # diffusers' own warns of parts to keep in float32, of which there are none
    vae.enable_slicing()  # a batch's images one by one


def fingerprint(config: ModelConfig) -> str:
    """A short digest of a model's weights and noise schedule, independent of their location and precision.

    Raises:
        ModelError: if the weights' files are not found.
    """
    own = _checkpoint_digest(config)
    added = [vae_digest(config.vae)] if config.vae else []
    added += [weights_digest(config.lora), str(config.lora_scale)] if config.lora else []
    return digest([own, *added])[:16] if added else own


def _checkpoint_digest(config: ModelConfig) -> str:
    if is_single_file(config.name):
        schedule = DDPMScheduler.from_config(file_schedule(config.name, _prediction(config))).config
        return _digest(schedule, [file_digest(config.name)])
    folder = resolve(config.name, "diffusion")
    origin = {} if os.path.isdir(folder) else {"revision": config.revision}
    try:
        # What has been loaded is in the local cache.
        schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True, **origin).config
        unet = UNet2DConditionModel.load_config(folder, subfolder="unet", local_files_only=True, **origin)
        parts = (XL_WEIGHTS if is_xl(unet) else WEIGHTS).items()
        digests = [
            weights_digest(folder, part, stem, variant=config.variant, without=DECODER, **origin)
            for part, stem in parts
        ]
    except OSError as error:
        raise ModelError(_explain(config, folder, error)) from error
    if prediction := _prediction(config):
        schedule = dict(schedule) | {"prediction_type": prediction}
    return _digest(schedule, digests)


def _digest(schedule: Mapping[str, Any], weights: list[str]) -> str:
    """Of the noise schedule and the weights of each part."""
    values = [schedule[name] for name in SCHEDULE]
    if schedule["rescale_betas_zero_snr"]:  # of some fine-tuned SDXLs; without it, digests are as they were
        values.append("rescale_betas_zero_snr")
    return hashlib.sha256((repr(values) + "".join(weights)).encode()).hexdigest()[:16]


def _what(config: ModelConfig) -> str:
    return f"the diffusion model '{config.name}' (`model.name`)"


def _explain(config: ModelConfig, folder: str, error: Exception) -> str:
    if os.path.isdir(folder) and (others := explain_folder(folder)):
        return f"cannot load {_what(config)}:\n{others}"
    if os.path.isdir(folder):
        hint = (
            "a checkpoint folder in diffusers' layout holds unet/, vae/, text_encoder/, tokenizer/ and scheduler/, for "
            "SDXL also text_encoder_2/ and tokenizer_2/, with weights in .safetensors files, plain or of the variant "
            "that `model.variant` names"
        )
    else:
        hint = (
            "the hub's files cannot be used: give `model.variant` if there are only files of another variant than "
            "fp16, or the folder of a downloaded checkpoint"
        )
    return f"cannot load {_what(config)}: {hint}.\n{type(error).__name__}: {error}"


def _speed_up(config: ModelConfig, model: DiffusionModel) -> None:
    for part in (model.unet, model.vae):
        if model.device.type == "cuda":
            part.to(memory_format=torch.channels_last)  # the layout that tensor cores convolve without transposing
        if config.compile:
            compile_parts(part)


def _check_size(model: DiffusionModel) -> None:
    deepest = model.vae_stride * 2 ** (len(model.unet.config.block_out_channels) - 1)
    if model.image_size % deepest:
        raise ModelError(
            f"`model.image_size` {model.image_size} is not a multiple of {deepest}, which this U-Net needs"
        )
