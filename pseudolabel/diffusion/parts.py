"""The parts of a checkpoint as they are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


@dataclass(frozen=True)
class Parts:
    """What a checkpoint consists of, on the CPU.

    Attributes:
        unet, vae, text_encoder, tokenizer: the parts of every Stable Diffusion.
        schedule: configuration of its noise schedule, as of diffusers' `DDPMScheduler`.
        text_encoder_2, tokenizer_2: SDXL's second ones.
        index: what a folder's `model_index.json` says; empty where there is none.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: Mapping[str, Any]
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    index: Mapping[str, Any] | None = None
