from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GitForCausalLM

from pseudolabel.config import CaptionConfig
from pseudolabel.errors import ModelError, SettingError
from pseudolabel.io import pretrained
from pseudolabel.text import captioner
from pseudolabel.text.captioner import Captioner
from tests.plain.blip import tiny_blip
from tests.plain.captioners import tiny_blip2, tiny_git, tiny_without_leads

CPU = torch.device("cpu")
LEADS = [
    "a photograph of star",
    "a photograph of red heart",
    "",
    "a photograph of cross",
    "a photograph of the big blue star",
    "",
]


@pytest.fixture(scope="module", params=[tiny_blip, tiny_blip2, tiny_git])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CaptionConfig:
    build: Callable[[Path], Path] = request.param
    return CaptionConfig(model=str(build(tmp_path_factory.mktemp("captioner"))), max_new_tokens=6, batch=2)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)) for _ in LEADS]


def test_captions_go_on_from_their_leads(config: CaptionConfig, images: list[Image.Image]) -> None:
    captions = Captioner(config, CPU)(images, LEADS)
    assert all(caption.startswith(lead) for caption, lead in zip(captions, LEADS, strict=True))
    assert any(len(caption) > len(lead) > 0 for caption, lead in zip(captions, LEADS, strict=True))


def test_an_empty_lead_leaves_the_beginning_to_the_model(config: CaptionConfig, images: list[Image.Image]) -> None:
    """The published use without a text: pixels and nothing else."""
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(config.model),
        AutoProcessor.from_pretrained(config.model),
    )
    pixels = processor(images=images, return_tensors="pt").pixel_values
    expected = processor.batch_decode(model.generate(pixel_values=pixels, max_new_tokens=6), skip_special_tokens=True)
    captions = Captioner(config, CPU)(images, [""] * len(images))
    assert captions == [text.strip() for text in expected]
    assert any(captions)


def test_a_caption_does_not_depend_on_its_company(config: CaptionConfig, images: list[Image.Image]) -> None:
    """Padding would move BLIP's first token and its positions."""
    alone = Captioner(config, CPU)
    together = Captioner(replace(config, batch=8), CPU)(images, LEADS)
    assert [alone([image], [lead])[0] for image, lead in zip(images, LEADS, strict=True)] == together


def test_a_caption_tells_of_the_image(config: CaptionConfig, images: list[Image.Image]) -> None:
    captions = Captioner(config, CPU)(images, [LEADS[0]] * len(images))
    assert len(set(captions)) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_a_length_in_all_is_the_published_call_s(images: list[Image.Image], tmp_path: Path, beams: int) -> None:
    """BLIP's own `max_length`, which counts the lead and the token before it, and its beam search."""
    folder = tiny_blip(tmp_path)
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    config = CaptionConfig(model=str(folder), max_length=9, beams=beams)
    captions, shorter = Captioner(config, CPU)(images, LEADS), 0
    longer = Captioner(replace(config, max_length=0), CPU)(images, LEADS)
    for image, lead, found, other in zip(images, LEADS, captions, longer, strict=True):
        inputs = processor(images=image, return_tensors="pt", **({"text": lead} if lead else {}))
        tokens = model.generate(**inputs, max_length=9, num_beams=beams)
        assert found == processor.decode(tokens[0], skip_special_tokens=True)
        assert len(processor.tokenizer(found, add_special_tokens=False).input_ids) <= 8
        shorter += len(found) < len(other)
    assert shorter, "nothing was cut"


def test_beams_show(config: CaptionConfig, images: list[Image.Image]) -> None:
    assert Captioner(replace(config, beams=4), CPU)(images, LEADS) != Captioner(config, CPU)(images, LEADS)


def test_a_lead_that_takes_up_the_whole_length_stays_as_it_is(config: CaptionConfig, images: list[Image.Image]) -> None:
    captions = Captioner(replace(config, max_length=5), CPU)(images, LEADS)
    free = Captioner(replace(config, max_new_tokens=4), CPU)(images[2:3], [""])
    assert captions[:2] + captions[3:5] == LEADS[:2] + LEADS[3:5]  # each of four words and more
    assert captions[2:3] == free


@pytest.mark.parametrize("setting", [{"max_length": -1}, {"max_new_tokens": 0}, {"beams": 0}], ids=str)
def test_lengths_that_no_caption_has(setting: dict[str, int]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(SettingError, match=rf"captions\.{name} {value}: give at least"):
        Captioner(CaptionConfig(model="shapes", **setting), CPU)


def test_nothing_to_caption(config: CaptionConfig) -> None:
    assert Captioner(config, CPU)([], []) == []


def test_half_precision(config: CaptionConfig, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: images arrive in the precision of the model, parts of which may keep their own."""
    for module in (captioner, pretrained):
        monkeypatch.setattr(module, "resolve_dtype", lambda name, device: torch.bfloat16)
    half = Captioner(config, CPU)
    assert torch.bfloat16 in {weight.dtype for weight in half.model.parameters()}
    captions = half(images, LEADS)
    assert all(caption.startswith(lead) for caption, lead in zip(captions, LEADS, strict=True))


def test_git_goes_on_as_published(images: list[Image.Image], tmp_path: Path) -> None:
    """The published use: the lead without the tokens around a sentence, the first of them put before it again."""
    folder = tiny_git(tmp_path)
    model, processor = GitForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    lead = processor.tokenizer(LEADS[0], add_special_tokens=False).input_ids
    tokens = torch.tensor([[processor.tokenizer.cls_token_id, *lead]])
    pixels = processor(images=images[0], return_tensors="pt").pixel_values
    generated = model.generate(pixel_values=pixels, input_ids=tokens, max_new_tokens=6)
    expected = processor.batch_decode(generated, skip_special_tokens=True)
    assert Captioner(CaptionConfig(model=str(folder), max_new_tokens=6), CPU)(images[:1], LEADS[:1]) == expected


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`captions\.model`.*safetensors"):
        Captioner(CaptionConfig(model=str(tmp_path)), CPU)


def test_a_captioner_that_takes_no_leads(tmp_path: Path) -> None:
    folder = tiny_without_leads(tmp_path)
    with pytest.raises(ModelError, match=r"`captions\.model`\) has no processor of images and sentences"):
        Captioner(CaptionConfig(model=str(folder)), CPU)
