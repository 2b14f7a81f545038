from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.config import CaptionConfig, FilterConfig
from pseudolabel.errors import SettingError
from pseudolabel.io.shipped import resolve
from pseudolabel.text.category_filter import CategoryFilter
from pseudolabel.text.tagclip import LateAttention, above_half, boxed, grid_of
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.clip import tiny_clip
from tests.plain.tagclip import boxes, plain_scores

CPU = torch.device("cpu")
VOCABULARY = load_vocabulary("shapes")


@pytest.fixture(params=["random", "shapes"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tiny_clip(tmp_path / "clip") if request.param == "random" else resolve("shapes", "clip"))


def test_scores_equal_plain_ones(folder: str) -> None:
    generator = np.random.default_rng(0)
    sizes = [(72, 40), (48, 64), (61, 50)]
    images = [
        Image.fromarray(generator.integers(0, 255, (5, 7, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in sizes
    ]
    config = FilterConfig(image="tagclip", nouns="none", clip=folder)
    guesses = CategoryFilter(config, CaptionConfig(), CPU)(images, VOCABULARY)
    words = [*(entry.prompt for entry in VOCABULARY.classes), *VOCABULARY.background_words]
    sentences = [config.template.format(word) for word in words]
    for image, found in zip(images, guesses, strict=True):
        expected = np.array(plain_scores(folder, image, sentences, len(VOCABULARY)))
        np.testing.assert_allclose(found.image_scores, expected, atol=1e-4)
        middle = (expected.min() + expected.max()) / 2
        assert found.by_image == tuple(int(place) + 1 for place in np.flatnonzero(expected > middle))


def test_boxes_equal_plain_ones() -> None:
    for seed in range(5):
        mask = np.random.default_rng(seed).random((9, 7)) < 0.3
        np.testing.assert_array_equal(boxed(torch.from_numpy(mask)), boxes(mask))


def affinity(attention: torch.Tensor) -> torch.Tensor:
    late = LateAttention(len(attention) + 1)
    for layer in attention:
        late.add(layer)
    return late.affinity()


def test_the_affinity_is_that_of_twelve_layers() -> None:
    """Layers 9 to 11 of 12 are averaged, where four of the first 11 lie above their average."""
    attention = torch.rand(11, 6, 6, generator=torch.Generator().manual_seed(0))
    votes = sum((layer > layer.mean()).int() for layer in attention)
    expected = torch.where(votes >= 4, (attention[8] + attention[9] + attention[10]) / 3, 0)
    torch.testing.assert_close(affinity(attention), expected / expected.sum(1, keepdim=True))
    assert torch.equal(affinity(torch.ones(11, 6, 6)), torch.eye(6))  # nothing above its average


def test_large_images_are_scaled_down() -> None:
    assert grid_of((500, 375), 16) == (23, 31)
    assert grid_of((4096, 2048), 16) == (32, 64)
    assert grid_of((5, 3), 16) == (1, 1)


def test_equal_scores_choose_all() -> None:
    assert above_half(torch.full((3,), 0.2)).all()
    assert above_half(torch.tensor([0.0, 0.6, 1.0])).tolist() == [False, True, True]


def test_one_class_is_refused() -> None:
    config = FilterConfig(image="tagclip", nouns="none", clip="shapes")
    alone = replace(VOCABULARY, classes=VOCABULARY.classes[:1])
    with pytest.raises(SettingError, match="there is one: take absolute"):
        CategoryFilter(config, CaptionConfig(), CPU)([Image.new("RGB", (64, 64))], alone)
