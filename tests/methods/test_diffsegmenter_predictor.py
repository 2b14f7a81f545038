"""DiffSegmenter on samples, in batches, against the method on one pair of image and class at a time."""

from dataclasses import replace

import numpy as np
import pytest

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import SampleError, SettingError
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.score_maps import min_max
from pseudolabel.shapes.world import draw_scene
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt, token_weights
from pseudolabel.vocabulary import load_vocabulary
from tests.plain import diffsegmenter as plain
from tests.plain.architectures import context, loaded

NAMES = load_vocabulary("shapes")
CLASSES = [(1,), (4, 6), (), (2,), (2, 3, 5), (1,)]
PLAIN = DiffSegmenterConfig(timesteps=[50, 150])


def samples(classes=CLASSES):
    images = [draw_scene(np.random.default_rng([9, number])).image for number in range(len(CLASSES))]
    return [Sample(f"image_{number}", images[number % len(images)], own) for number, own in enumerate(classes)]


def predictor(config=PLAIN, captions=None, name="tiny", **work):
    return DiffSegmenterPredictor(context(name, NAMES, captions, **work), config)


def one_map(config, sample, index, name="tiny"):
    """Of one class, with nothing beside it."""
    model = loaded(name)
    noise = draw_noise(0, "noise", sample.key, 2 if config.noise == "per_timestep" else 1, model.latent_shape)
    posterior = draw_noise(0, "posterior", sample.key, 1, model.latent_shape) if config.vae == "sample" else None
    tokens = token_weights(model.tokenizer, build_prompt(NAMES.template, NAMES.prompt(index)), config)
    embeddings = TextEncodings(model, [tokens.text]).emphasised(tokens.text, tokens.emphasis)
    latents = model.encode(model.pixels(sample.image)[None], posterior)
    maps = CompletedAttention(model, config)(latents, noise[None], embeddings[None], tokens.weights[None, None])
    return min_max(maps[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny_xl"])
@pytest.mark.parametrize(
    "config", [PLAIN, replace(PLAIN, vae="sample", noise="per_timestep")], ids=["default", "sampled"]
)
def test_maps_of_batches_equal_single_pairs(config, name):
    side = loaded(name).latent_shape[1]
    for given, (sample, result) in zip(samples(), predictor(config, name=name, batch=6)(samples()), strict=True):
        assert sample.key == given.key
        assert isinstance(result, ScoreMaps)
        assert result.maps.dtype == np.float16
        assert result.maps.shape == (len(given.classes), side, side)
        for own, index in zip(result.maps, given.classes, strict=True):
            np.testing.assert_allclose(own.astype(np.float32), one_map(config, given, index, name).numpy(), atol=2e-3)


TAIL = "and grass"


def joint_predictor(name, **changes):
    return predictor(replace(PLAIN, prompt="joint", joint_tail=TAIL, **changes), name=name, batch=6)


XL = {"level_weights": {32: 0.5, 16: 0.1}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [("tiny", {}), ("tiny", {"affinity": "power", "iterations": 2}), ("tiny_xl", XL), ("tiny_ssd", XL)],
    ids=str,
)
def test_joint_maps_agree_with_the_equations(name, change):
    config, model = replace(PLAIN, prompt="joint", **change), loaded(name)
    for sample, result in joint_predictor(name, **change)(samples()):
        names = [NAMES.prompt(index) for index in sample.classes]
        before = ["a photograph of " + "".join(f"{name} and " for name in names[:at]) for at in range(len(names))]
        after = ["".join(f" and {name}" for name in names[at + 1 :]) + f" {TAIL}" for at in range(len(names))]
        sentences = [plain.Sentence(*parts) for parts in zip(before, names, after, strict=True)]
        assert len({sentence.text for sentence in sentences}) <= 1
        noise = draw_noise(0, "noise", sample.key, 1, model.latent_shape)
        expected = plain.score_maps(model, config, sample.image, sentences, noise) if names else []
        assert len(result.maps) == len(sample.classes)
        for own, other in zip(result.maps, expected, strict=True):
            np.testing.assert_allclose(own.astype(np.float32), min_max(other).numpy(), atol=2e-3)


@pytest.mark.slow
def test_classes_that_do_not_fit_into_one_prompt_have_their_own(caplog):
    long = "grass " * 70  # with three classes behind it more than 77 tokens
    names = replace(NAMES, template=long + "{}")
    found, expected = (
        DiffSegmenterPredictor(context("tiny", names, batch=6), replace(PLAIN, prompt=prompt))
        for prompt in ("joint", "per_class")
    )
    both = list(zip(found(samples()), expected(samples()), strict=True))
    assert found.too_long == 1
    assert "1 images so far have classes that do not fit into one prompt of 77 tokens" in caplog.text
    for (sample, one), (_, other) in both:
        if len(sample.classes) in (1, 3):
            np.testing.assert_allclose(one.maps, other.maps, atol=2e-3)


def test_a_joint_prompt_takes_no_captions():
    with pytest.raises(SettingError, match="takes no captions"):
        predictor(replace(PLAIN, prompt="joint"), captions={})


@pytest.mark.slow
def test_threads_change_nothing():
    one, other = (list(predictor(batch=6, loaders=loaders)(samples())) for loaders in (1, 4))
    for (_, maps), (_, same) in zip(one, other, strict=True):
        assert np.array_equal(maps.maps, same.maps)


def test_an_impossible_prompt_fails_only_its_sample():
    late = replace(NAMES, template="a photograph of " + "grass " * 100 + "{}")
    outcomes = [found for _, found in DiffSegmenterPredictor(context("tiny", late, batch=4), PLAIN)(samples())]
    assert [isinstance(found, SampleError) for found in outcomes] == [bool(own) for own in CLASSES]
    assert {found.status for found in outcomes if isinstance(found, SampleError)} == {"prompt"}


def test_samples_are_read_when_needed():
    """So memory does not grow with the number of samples in a unit."""
    taken = []

    def stream():
        for sample in samples(classes=[(1,)] * 300):
            taken.append(sample.key)
            yield sample

    results = predictor(batch=4)(stream())
    assert next(results)[0].key == "image_0"
    assert len(taken) < 150
    results.close()
