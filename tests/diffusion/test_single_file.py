"""Checkpoints in one file: the same parts, settings and maps as in diffusers' layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import pseudolabel as pl
from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.clip_tokenizer import clip_tokenizer as shipped_clip_tokenizer
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import ModelError
from tests.plain.architectures import SCHEDULE, clip_tokenizer
from tests.plain.original_layout import write_single_file

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WIDTH = 64  # a head of CLIP's text encoders
UNETS = {
    "v1": {"attention_head_dim": 8, "cross_attention_dim": WIDTH, "sample_size": 64},
    "v2": {
        "attention_head_dim": [1, 2, 2, 2],
        "cross_attention_dim": WIDTH,
        "sample_size": 96,
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "xl": {
        "attention_head_dim": [1, 2, 2],
        "cross_attention_dim": 3 * WIDTH,
        "sample_size": 128,
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (64, 128, 128),
        "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 48,
    },
}
LEVELS = (32, 32, 64, 64)


def build(kind: str, folder: Path) -> tuple[Path, Path]:
    """A checkpoint of seeded random weights: its folder in diffusers' layout, and its file."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    unet = UNet2DConditionModel(**{"block_out_channels": (64, 128, 128, 128)} | UNETS[kind])
    scale = {"scaling_factor": 0.13025, "force_upcast": True} if kind == "xl" else {"force_upcast": False}
    vae = AutoencoderKL(latent_channels=4, block_out_channels=LEVELS, layers_per_block=1, **blocks, **scale)
    common = {"vocab_size": 49_408, "intermediate_size": 32}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 1, "projection_dim": WIDTH}
    act = "gelu" if kind == "v2" else "quick_gelu"
    text = CLIPTextModel(CLIPTextConfig(**common, **sizes, hidden_act=act))
    second = {"hidden_size": 2 * WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2, "projection_dim": 48}
    config = CLIPTextConfig(**common, **second, hidden_act="gelu")
    text_2 = CLIPTextModelWithProjection(config) if kind == "xl" else None
    for name, part in {"unet": unet, "vae": vae, "text_encoder": text, "text_encoder_2": text_2}.items():
        if part is not None:
            part.save_pretrained(folder / "parts" / name)
    tokenizer = clip_tokenizer()
    other = shipped_clip_tokenizer("!")
    (other if kind == "v2" else tokenizer).save_pretrained(folder / "parts" / "tokenizer")
    if text_2 is not None:
        other.save_pretrained(folder / "parts" / "tokenizer_2")
    prediction = "v_prediction" if kind == "v2" else "epsilon"
    DDPMScheduler(**SCHEDULE, prediction_type=prediction).save_pretrained(folder / "parts" / "scheduler")
    path = folder / f"{kind}.safetensors"
    return folder / "parts", write_single_file(path, unet, vae, text, text_2, open_clip=kind == "v2")


@pytest.fixture(scope="module", params=UNETS)
def checkpoint(request, tmp_path_factory) -> tuple[str, Path, Path]:
    return request.param, *build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def v1(tmp_path_factory) -> Path:
    return build("v1", tmp_path_factory.mktemp("v1"))[1]


def load(path: Path, **settings) -> DiffusionModel:
    return load_model(ModelConfig(name=str(path), **settings), CPU)


def test_a_file_is_the_folder(checkpoint) -> None:
    _, folder, file = checkpoint
    expected, found = load(folder), load(file)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        theirs, ours = getattr(expected, name), getattr(found, name)
        if theirs is None:
            assert ours is None
            continue
        weights = ours.state_dict()
        assert weights.keys() == theirs.state_dict().keys()
        assert all(torch.equal(weights[key], tensor) for key, tensor in theirs.state_dict().items()), name
    assert (found.image_size, found.prediction) == (expected.image_size, expected.prediction)
    assert torch.equal(found.alphas_cumprod, expected.alphas_cumprod)
    assert found.vae.config.scaling_factor == expected.vae.config.scaling_factor
    words = ["a photograph of a dog", "naïve Zebrafinken 42!", ""]
    for ours, theirs in ((found.tokenizer, expected.tokenizer), (found.tokenizer_2, expected.tokenizer_2)):
        if theirs is not None:
            assert ours(words, padding="max_length").input_ids == theirs(words, padding="max_length").input_ids


def test_maps_are_those_of_the_folder(checkpoint) -> None:
    kind, folder, file = checkpoint
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    side = 256
    weights = {"xl": {16: 0.5, 32: 0.5}}.get(kind, {8: 0.2, 16: 0.3, 32: 0.5})
    options = {"timesteps": [100], "level_weights": weights}
    scores = [
        pl.DiffSegmenter(load(path, image_size=side), **options)(image, labels=["dog", "cat"]).scores
        for path in (folder, file)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])


def test_the_tokenizer_has_openai_s_ids() -> None:
    assert clip_tokenizer()("a photo of a dog").input_ids == [49406, 320, 1125, 539, 320, 1929, 49407]
    ours, theirs = shipped_clip_tokenizer(), clip_tokenizer()
    text = "A Stop-Sign's colours: 12.5 crème brûlée 東京"
    assert ours(text).input_ids == theirs(text).input_ids
    assert len(ours) == 49_408
    padded = shipped_clip_tokenizer("!")("dog", padding="max_length").input_ids
    assert padded[:4] == [49406, 1929, 49407, 0]


def test_a_file_is_known_by_its_weights(v1, tmp_path) -> None:
    copy = tmp_path / "renamed.safetensors"
    tensors = load_file(v1)
    save_file(tensors | {"model_ema.decay": torch.ones(1)}, copy)
    assert fingerprint(ModelConfig(name=str(copy))) == fingerprint(ModelConfig(name=str(v1)))
    assert fingerprint(ModelConfig(name=str(v1), prediction="v_prediction")) != fingerprint(ModelConfig(name=str(v1)))
    name = "model.diffusion_model.out.2.bias"
    save_file(tensors | {name: tensors[name] + 1}, copy)
    assert fingerprint(ModelConfig(name=str(copy))) != fingerprint(ModelConfig(name=str(v1)))


def test_the_prediction_can_be_chosen(v1) -> None:
    assert load(v1).prediction == "epsilon"
    assert load(v1, prediction="v_prediction").prediction == "v_prediction"


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
KIND = r"holds no complete checkpoint of a supported kind: its {} tensors begin with "


@pytest.mark.parametrize(
    ("without", "added", "message"),
    [
        ("model.diffusion_model.middle_block.0", {}, r"lacks \d+ tensors of its U-Net, the first is mid_block"),
        ("first_stage", {}, "looks like Stable Diffusion 1.x, but is not complete"),
        ("cond_stage", {}, KIND.format(r"\d+")),
        ("", {"lora_unet_down.alpha": torch.ones(1)}, "is a LoRA: give it as `model.lora`"),
        ("none", {CONV_IN: torch.ones(64, 9, 3, 3)}, "channels and the VAE's differ, 9 and 4"),
        (
            "none",
            {"model.diffusion_model.middle_block.0.out_layers.3.bias": torch.ones(9)},
            "has 1 tensors that no U-Net",
        ),
    ],
    ids=["no mid block", "no VAE", "no text encoder", "a LoRA", "inpainting", "another size"],
)
def test_incomplete_and_other_files_are_refused(v1, tmp_path, without, added, message) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: own for name, own in load_file(v1).items() if not name.startswith(without)} | added, path)
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_files_of_other_formats_are_refused(tmp_path) -> None:
    pickled = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}}, pickled)
    with pytest.raises(ModelError, match=r"is no \.safetensors file; .* Convert it"):
        load(pickled)
    page = tmp_path / "model.safetensors"
    page.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ModelError, match="is a web page"):
        load(page)
