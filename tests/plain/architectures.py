"""Checkpoint folders with seeded random weights, built from real diffusers and transformers classes."""

import gzip
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import Attention
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.io.shipped import NAMES
from pseudolabel.methods.registry import Context
from pseudolabel.text.captions import Captions
from pseudolabel.vocabulary import Vocabulary

# The schedule of every Stable Diffusion 1.x and 2.x.
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
V15_UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
V15_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512}
V15_TEXT = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
}
# SDXL, and what SSD-1B does differently: fewer layers, not alike on the way up, and none in the middle.
XL_UNET = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 1280,
}
SSD_LAYERS = {
    "transformer_layers_per_block": (1, 2, 4),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
    "mid_block_type": "UNetMidBlock2D",
}
TINY_UNET = {
    "sample_size": 16,
    "block_out_channels": (16, 32, 32, 32),
    "layers_per_block": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
TINY_VAE = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 128}
TINY_TEXT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TINY_XL_UNET = {
    "sample_size": 24,
    "block_out_channels": (16, 32, 32),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 24 + 32,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
}
TINY_TEXT_2 = TINY_TEXT | {"hidden_size": 32, "num_hidden_layers": 3, "projection_dim": 20, "hidden_act": "gelu"}


def stable_diffusion_v15(folder: Path) -> Path:
    """Stable Diffusion v1.5 in everything but its weights and its tokenizer; float16 files of about 2 GB."""
    return _build(folder, V15_UNET, V15_VAE, V15_TEXT, {}, half=True)


def tiny(folder: Path, **overrides: object) -> Path:
    """Stable Diffusion v1.x's layout at a 128-pixel image; `overrides` change the U-Net's configuration."""
    return _build(folder, TINY_UNET | overrides, TINY_VAE, TINY_TEXT, {})


def tiny_v2(folder: Path) -> Path:
    """What Stable Diffusion 2.x does differently, with latents of 24, 12, 6 and 3."""
    unet = {
        "sample_size": 24,
        "attention_head_dim": [2, 4, 4, 4],
        "use_linear_projection": True,
        "upcast_attention": True,
    }
    text = TINY_TEXT | {"hidden_act": "gelu"}
    return _build(folder, TINY_UNET | unet, TINY_VAE, text, {"prediction_type": "v_prediction"})


def tiny_xl(folder: Path, **overrides: object) -> Path:
    """SDXL's layout as its own pipeline saves it, with latents of 24 and maps of 12 and 6."""
    tokenizer, second = shipped_tokenizer(), shipped_tokenizer()
    second.pad_token = second.convert_ids_to_tokens(0)  # as in SDXL, whose second tokenizer fills up with token 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**XL_UNET | TINY_XL_UNET | overrides)
        _sharpen(unet)
        StableDiffusionXLPipeline(
            vae=AutoencoderKL(latent_channels=4, scaling_factor=0.13025, **_vae_blocks(TINY_VAE), **TINY_VAE),
            text_encoder=CLIPTextModel(_text_config(tokenizer, TINY_TEXT)),
            text_encoder_2=CLIPTextModelWithProjection(_text_config(second, TINY_TEXT_2)),
            tokenizer=tokenizer,
            tokenizer_2=second,
            unet=unet,
            scheduler=EulerDiscreteScheduler(**{k: v for k, v in SCHEDULE.items() if k != "clip_sample"}),
            add_watermarker=False,
        ).save_pretrained(folder)
    return folder


def tiny_ssd(folder: Path) -> Path:
    """SSD-1B's layers at SDXL's tiny size."""
    return tiny_xl(folder, **SSD_LAYERS | {"reverse_transformer_layers_per_block": ((1, 1, 3), (2, 1, 1), 1)})


@cache
def loaded(name: str) -> DiffusionModel:
    """One that ships, or a tiny one in float32 on the CPU; tests share it and leave it as it is."""
    if name in NAMES:
        return load_model(ModelConfig(name=name), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        {"tiny": tiny, "tiny_v2": tiny_v2, "tiny_xl": tiny_xl, "tiny_ssd": tiny_ssd}[name](Path(folder))
        return load_model(ModelConfig(name=folder), torch.device("cpu"))


def shipped_tokenizer() -> CLIPTokenizer:
    """The tokenizer of the small model that ships with the package; it spells unknown words letter by letter."""
    return CLIPTokenizer.from_pretrained(resources.files("pseudolabel.shapes") / "models" / "shapes" / "tokenizer")


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own, that of Stable Diffusion 1.x, from OpenAI's list of merges as MMSegmentation ships it."""
    file = resources.files("mmseg") / "utils" / "bpe_simple_vocab_16e6.txt.gz"
    merges = [tuple(line.split()) for line in gzip.decompress(file.read_bytes()).decode().split("\n")[1:48895]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _build(folder: Path, unet: dict, vae: dict, text: dict, schedule: dict, half: bool = False) -> Path:
    tokenizer = shipped_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(latent_channels=4, **_vae_blocks(vae), **vae),
            "text_encoder": CLIPTextModel(_text_config(tokenizer, text)),
        }
    _sharpen(models["unet"])
    for name, model in models.items():
        (model.half() if half else model).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "tokenizer")
    DDPMScheduler(**SCHEDULE, **schedule).save_pretrained(folder / "scheduler")
    return folder


def _vae_blocks(vae: dict) -> dict:
    blocks = len(vae["block_out_channels"])
    return {"down_block_types": ("DownEncoderBlock2D",) * blocks, "up_block_types": ("UpDecoderBlock2D",) * blocks}


def _text_config(tokenizer: CLIPTokenizer, text: dict) -> CLIPTextConfig:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return CLIPTextConfig(vocab_size=len(tokenizer), **special, **text)


@torch.no_grad()
def _sharpen(unet: UNet2DConditionModel, factor: float = 3.0) -> None:
    """Untrained queries and keys are so small that every softmax is nearly uniform; larger ones make it peaked."""
    for layer in unet.modules():
        if isinstance(layer, Attention):
            layer.to_q.weight *= factor
            layer.to_k.weight *= factor


def context(name: str, vocabulary: Vocabulary, captions: Captions | None = None, **values: int) -> Context:
    """What a predictor is built from, with the model of that name on the CPU."""
    return Context(torch.device("cpu"), vocabulary, loaded(name), captions, **values)
