from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import correlation, cosine
from transformers import CLIPModel, CLIPProcessor

from pseudolabel.config import CaptionConfig, FilterConfig
from pseudolabel.errors import ModelError, SettingError
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.category_filter import CategoryFilter, Guess
from pseudolabel.text.class_rules import classes_of_image, classes_of_spellings
from pseudolabel.text.nouns import find_nouns, load_pipeline
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.blip import tiny_blip
from tests.plain.clip import tiny_clip
from tests.plain.pipeline import train_pipeline

CPU = torch.device("cpu")
VOCABULARY = load_vocabulary("shapes")
PROMPTS = [entry.prompt for entry in VOCABULARY.classes]
ANY = "tests give this folder to nobody"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[FilterConfig, CaptionConfig]:
    folder = tmp_path_factory.mktemp("models")
    clip, pipeline = tiny_clip(folder / "clip"), train_pipeline(folder / "nouns")
    captions = CaptionConfig(model=str(tiny_blip(folder / "blip")), max_new_tokens=8, batch=4)
    return FilterConfig(clip=str(clip), spacy=str(pipeline), prefixes=["", "a photograph of"]), captions


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)) for _ in range(6)]


def guess(models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image], **changes: object) -> list[Guess]:
    config, captions = models
    return CategoryFilter(replace(config, **changes), captions, CPU)(images, VOCABULARY)


def test_captions_and_their_nouns(models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image]) -> None:
    """One by one, with the lead's own noun left out."""
    config, captions = models
    captioner, pipeline = Captioner(captions, CPU), load_pipeline(config.spacy)
    guesses = guess(models, images, image="none", nouns="synonyms")
    for image, found in zip(images, guesses, strict=True):
        free, led = captioner([image], [""])[0], captioner([image], ["a photograph of"])[0]
        assert found.captions == (free, led)
        added = [free, led.removeprefix("a photograph of")]
        assert set(found.nouns) == {noun for nouns in find_nouns(pipeline, added) for noun in nouns}
        assert len(set(found.nouns)) == len(found.nouns)
        assert found.by_nouns == classes_of_spellings(found.nouns, VOCABULARY) == found.classes
        assert found.image_scores == found.by_image == ()
    assert any(found.by_nouns for found in guesses)
    filter_without = CategoryFilter(replace(config, nouns="none"), captions, CPU)
    assert filter_without.nouns(images) == [found.nouns for found in guesses]


def test_classes_of_the_image(models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image]) -> None:
    model, processor = (kind.from_pretrained(models[0].clip) for kind in (CLIPModel, CLIPProcessor))
    texts = [f"A photo of a {prompt}" for prompt in PROMPTS]
    with torch.inference_mode():
        logits = model(**processor(text=texts, images=images, padding=True, return_tensors="pt")).logits_per_image
        cosines = logits / model.logit_scale.exp()
    guesses = guess(models, images, nouns="none", image_threshold=0.6)
    for row, found in zip(cosines, guesses, strict=True):
        np.testing.assert_allclose(found.image_scores, row, atol=1e-5)
        assert found.by_image == classes_of_image(row, "relative", 0.6) == found.classes
        assert found.captions == found.nouns == found.by_nouns == ()
    assert len({found.by_image for found in guesses}) > 1


def expected_by_nouns(rule: str, nouns: tuple[str, ...], clip: Path, threshold: float) -> tuple[int, ...]:
    """The rules on text embeddings that are computed noun by noun, with scipy's distances."""
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)

    def ids(text: str) -> torch.Tensor:
        return processor.tokenizer(text, return_tensors="pt").input_ids

    def state(word: str) -> np.ndarray:
        return model.text_model(ids(word)).last_hidden_state[0, 1:-1].mean(0).detach().numpy()

    def embedding(text: str) -> np.ndarray:
        return model.get_text_features(ids(text)).pooler_output[0].detach().numpy()

    if rule == "similarity":
        words = {word for noun in nouns for word in noun.split()}
        likeness = {prompt: [1 - cosine(state(word), state(prompt)) for word in words] for prompt in PROMPTS}
        return tuple(n for n, prompt in enumerate(PROMPTS, 1) if any(c > threshold for c in likeness[prompt]))
    distance = {"nearest": cosine, "mean_of_minima": correlation}[rule]
    table = np.array([[distance(embedding(noun), embedding(prompt)) for prompt in PROMPTS] for noun in nouns])
    bound = table.mean() if rule == "nearest" else table.min(1).mean()
    return tuple(sorted({int(row.argmin()) + 1 for row in table if row.min() <= bound + 1e-6}))


@pytest.mark.parametrize("rule", ["similarity", "nearest", "mean_of_minima"])
def test_classes_of_nouns(models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image], rule: str) -> None:
    guesses = guess(models, images, image="none", nouns=rule, noun_threshold=0.3)
    for found in guesses:
        expected = expected_by_nouns(rule, found.nouns, Path(models[0].clip), 0.3) if found.nouns else ()
        assert found.by_nouns == expected
    assert len({found.by_nouns for found in guesses}) > 1


def test_both_and_the_union(models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image]) -> None:
    settings = {"noun_threshold": 0.5, "image_threshold": 0.9}
    alike = guess(models, images, nouns="similarity", **settings)
    spelled = guess(models, images, nouns="synonyms", **settings)
    for one, other, both in zip(alike, spelled, guess(models, images, nouns="both", **settings), strict=True):
        assert set(both.by_nouns) == {*one.by_nouns, *other.by_nouns}
        assert set(both.classes) == {*both.by_nouns, *both.by_image}
        assert both.classes == tuple(sorted(both.classes))


def test_a_guess_does_not_depend_on_its_company(
    models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image]
) -> None:
    config, captions = models
    one_by_one = CategoryFilter(config, captions, CPU)
    for image, found in zip(images, guess(models, images), strict=True):
        alone = one_by_one([image], VOCABULARY)[0]
        assert replace(alone, image_scores=found.image_scores) == found


def test_only_what_the_rules_ask_for_is_loaded(
    models: tuple[FilterConfig, CaptionConfig], images: list[Image.Image]
) -> None:
    config, captions = models
    without_clip = CategoryFilter(replace(config, image="none", nouns="synonyms", clip=ANY), captions, CPU)
    without_captions = CategoryFilter(replace(config, nouns="none", spacy=ANY), CaptionConfig(model=ANY), CPU)
    assert without_clip(images[:1], VOCABULARY)[0].captions
    assert without_captions(images[:1], VOCABULARY)[0].image_scores
    assert without_captions([], VOCABULARY) == []


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingError, match=r"`filter\.image` none and `filter\.nouns` none"):
        CategoryFilter(FilterConfig(image="none", nouns="none"), CaptionConfig(), CPU)
    with pytest.raises(SettingError, match=r"`filter\.template` 'A photo'"):
        CategoryFilter(FilterConfig(template="A photo"), CaptionConfig(), CPU)


def test_a_missing_model_is_named(tmp_path: Path, images: list[Image.Image]) -> None:
    with pytest.raises(ModelError, match=r"`filter\.clip`"):
        CategoryFilter(FilterConfig(clip=str(tmp_path)), CaptionConfig(), CPU)(images, VOCABULARY)
