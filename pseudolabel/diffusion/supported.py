"""Which checkpoints can be used, and what the message says of one that cannot."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from diffusers import UNet2DConditionModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from pseudolabel.diffusion.model import DiffusionModel, Prediction
from pseudolabel.errors import ModelError

SUPPORTED = (
    "complete text-to-image checkpoints of Stable Diffusion 1.x and 2.x (StableDiffusionPipeline), and of SDXL and "
    "SSD-1B (StableDiffusionXLPipeline)"
)
INDEX = "model_index.json"
PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
TIME_IDS = 6  # numbers that SDXL is told of an image; its refiner takes five, one of them an aesthetic score


def read_index(folder: str, **origin: Any) -> dict[str, Any]:
    """What a checkpoint says of its pipeline and its parts; empty for one that says nothing.

    Args:
        folder: folder or hub id of the checkpoint.
        origin: keyword arguments of the hub's client.

    Raises:
        OSError: if the hub does not give the file, although it is there.
        ValueError: if the file is not JSON.
    """
    if os.path.isdir(folder):
        path = Path(folder) / INDEX
        return json.loads(path.read_text()) if path.is_file() else {}
    try:
        return json.loads(Path(hf_hub_download(folder, INDEX, **origin)).read_text())
    except EntryNotFoundError:
        return {}


def check_index(name: str, index: Mapping[str, Any]) -> None:
    """Refuse pipelines of other parts, such as SD 3, Flux or SDXL's refiner, before anything large is loaded.

    Raises:
        ModelError: names the checkpoint, its pipeline, and the part.
    """
    if not index:
        return
    for part, wanted in PARTS.items():
        found = (index.get(part) or [None, None])[1]
        if found != wanted:
            problem = f"its part `{part}` is {found}, not {wanted}" if found else f"it has no part `{part}`, {wanted}"
            raise refused(name, problem, index)


def check_schedule(name: str, index: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
    """Refuse schedulers without a beta schedule, such as those of EDM and of flow matching.

    Raises:
        ModelError: names the checkpoint and the scheduler.
    """
    if "beta_schedule" not in schedule:
        scheduler = schedule.get("_class_name", "its scheduler")
        raise refused(name, f"{scheduler} has no beta schedule, from which noise is added to latents", index)


def is_xl(unet: UNet2DConditionModel | Mapping[str, Any]) -> bool:
    """Whether a U-Net, or a U-Net's configuration, is SDXL's: it also takes a pooled embedding and an image's sizes."""
    config = unet.config if isinstance(unet, UNet2DConditionModel) else unet
    return config.get("addition_embed_type") == "text_time"


def check_model(model: DiffusionModel, index: Mapping[str, Any]) -> None:
    """The parts must fit each other; without its files, a tokenizer is empty and every word unknown to it.

    Raises:
        ModelError: names the checkpoint and what does not fit.
    """
    unet, vae = model.unet.config, model.vae.config
    if model.prediction not in get_args(Prediction):
        kinds = " or ".join(get_args(Prediction))
        raise refused(model.name, f"its scheduler says that it predicts '{model.prediction}', not {kinds}", index)
    for option in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if unet.get(option) is not None:
            raise refused(model.name, f"its U-Net takes more than text (`{option}` is {unet[option]})", index)
    if unet.get("addition_embed_type") not in (None, "text_time"):
        problem = f"its U-Net takes more than text (`addition_embed_type` is {unet.addition_embed_type})"
        raise refused(model.name, problem, index)
    if any(vae.get(option) for option in ("latents_mean", "latents_std", "shift_factor")):
        raise refused(model.name, "its VAE shifts latents, where those of Stable Diffusion are only scaled", index)
    for what, (one, other) in _pairs(model).items():
        if one != other:
            raise refused(model.name, f"the {what} differ, {one} and {other}", index)
    if model.tokenizer_2 is not None and model.tokenizer.get_vocab() != model.tokenizer_2.get_vocab():
        raise refused(model.name, "its two tokenizers do not have the same tokens", index)


def _pairs(model: DiffusionModel) -> dict[str, tuple[int, int]]:
    """Pairs of numbers that are equal in a complete checkpoint."""
    unet, text = model.unet.config, model.text_encoder.config
    pairs = {
        "U-Net's channels and the VAE's": (unet.in_channels, model.vae.config.latent_channels),
        **_of_tokenizer("tokenizer", model.tokenizer, text),
    }
    if model.text_encoder_2 is None or model.tokenizer_2 is None:
        return pairs | {"U-Net's text width and the text encoder's": (unet.cross_attention_dim, text.hidden_size)}
    second = model.text_encoder_2.config
    widths = {
        "U-Net's text width and the text encoders'": (unet.cross_attention_dim, text.hidden_size + second.hidden_size),
        f"U-Net's added inputs and those of {TIME_IDS} numbers and the second text encoder": (
            unet.projection_class_embeddings_input_dim,
            TIME_IDS * unet.addition_time_embed_dim + second.projection_dim,
        ),
    }
    return pairs | widths | _of_tokenizer("second tokenizer", model.tokenizer_2, second)


def _of_tokenizer(name: str, tokenizer: Any, text: Any) -> dict[str, tuple[int, int]]:
    return {
        f"{name}'s vocabulary and the text encoder's": (len(tokenizer), text.vocab_size),
        f"{name}'s length and the text encoder's": (tokenizer.model_max_length, text.max_position_embeddings),
    }


def refused(name: str, problem: str, index: Mapping[str, Any]) -> ModelError:
    """The error for a checkpoint of another kind."""
    kind = f"is a {index['_class_name']}" if "_class_name" in index else "cannot be used"
    return ModelError(f"'{name}' (`model.name`) {kind}: {problem}. Supported are {SUPPORTED}")
