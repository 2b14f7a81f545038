"""Patch features of CLIP, ViT and DINOv2, real classes with random weights, against reading them by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, ViTConfig, ViTImageProcessor, ViTModel

from pseudolabel.errors import ModelError
from pseudolabel.methods.backbone import PatchFeatures

CPU = torch.device("cpu")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


@pytest.fixture(params=["vit", "dinov2"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    if request.param == "vit":
        model = ViTModel(ViTConfig(**SMALL, intermediate_size=24))
    else:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3))
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for shape in ((32, 32, 3), (50, 20, 3))]


def maps_of(features: PatchFeatures, own: list[Image.Image]) -> torch.Tensor:
    return features(torch.stack([features.pixels(image) for image in own]))


def test_features_are_at_their_patches(checkpoint):
    features = PatchFeatures(str(checkpoint), CPU)
    maps = maps_of(features, images())
    assert maps.shape == (2, 16, 4, 4)
    pixels = torch.tensor(np.asarray(images()[0])).permute(2, 0, 1)[None] / 255 * 2 - 1
    tokens = features.model(pixels).last_hidden_state[0]
    first = len(tokens) - 16  # behind the class token and the registers
    for row in range(4):
        for column in range(4):
            expected = tokens[first + 4 * row + column]
            torch.testing.assert_close(maps[0, :, row, column], expected, atol=1e-4, rtol=1e-3)


def test_features_cover_the_complete_image(checkpoint):
    """No crop: what changes at the far end of a tall image changes the last row most."""
    features, image = PatchFeatures(str(checkpoint), CPU), np.zeros((64, 32, 3), np.uint8)
    changed = image.copy()
    changed[-8:] = 255
    before, after = maps_of(features, [Image.fromarray(image), Image.fromarray(changed)])
    difference = (after - before).abs().sum((0, 2))
    assert difference.argmax() == 3


def test_the_small_clip_gives_patches():
    assert maps_of(PatchFeatures("shapes", CPU), images()).ndim == 4


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"`freesegdiff\.backbone`"):
        PatchFeatures(str(tmp_path), CPU)
