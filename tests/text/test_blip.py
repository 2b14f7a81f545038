from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.config import CaptionConfig
from pseudolabel.diffusion.load import ModelError
from pseudolabel.text.blip import BlipCaptioner
from tests.plain.blip import tiny_blip

CPU = torch.device("cpu")
LEADS = [
    "a photograph of star",
    "a photograph of red heart",
    "a photograph of cross",
    "a photograph of the big blue star",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CaptionConfig:
    return CaptionConfig(model=str(tiny_blip(tmp_path_factory.mktemp("blip"))), max_new_tokens=6, batch=2)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)) for _ in LEADS]


def test_captions_go_on_from_their_leads(config: CaptionConfig, images: list[Image.Image]) -> None:
    captions = BlipCaptioner(config, CPU)(images, LEADS)
    assert all(caption.startswith(lead) for caption, lead in zip(captions, LEADS, strict=True))
    assert any(len(caption) > len(lead) for caption, lead in zip(captions, LEADS, strict=True))


def test_a_caption_does_not_depend_on_its_company(config: CaptionConfig, images: list[Image.Image]) -> None:
    """Padding would move BLIP's first token and its positions."""
    alone = BlipCaptioner(config, CPU)
    together = BlipCaptioner(replace(config, batch=8), CPU)(images, LEADS)
    assert [alone([image], [lead])[0] for image, lead in zip(images, LEADS, strict=True)] == together


def test_a_caption_tells_of_the_image(config: CaptionConfig, images: list[Image.Image]) -> None:
    captions = BlipCaptioner(config, CPU)(images, [LEADS[0]] * len(images))
    assert len(set(captions)) > 1


def test_nothing_to_caption(config: CaptionConfig) -> None:
    assert BlipCaptioner(config, CPU)([], []) == []


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--captions\.model.*safetensors"):
        BlipCaptioner(CaptionConfig(model=str(tmp_path)), CPU)
