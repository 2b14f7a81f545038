"""The batched way against the ELBO baseline written plainly from Eq. 3 (tests/plain/elbo.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import ElboConfig
from pseudolabel.errors import SettingError
from pseudolabel.methods.elbo import PixelLikelihood
from pseudolabel.shapes.world import draw_scene
from tests.plain import elbo as plain
from tests.plain.architectures import loaded

pytestmark = pytest.mark.slow

PREDICTIONS = {"tiny": "epsilon", "tiny_v2": "v_prediction", "shapes": "epsilon", "tiny_xl": "epsilon"}
PROMPTS = ["", "a photograph of star", "a photograph of red car"]
CONFIG = ElboConfig(timesteps=[50, 900, 500], samples=4)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def log_likelihoods(name, config):
    """The mean over draws of (prompts, h, w) terms, all of them in one batch."""
    model = loaded(name)
    method, latent = PixelLikelihood(model, config), model.encode(model.pixels(scene())[None])
    prompts, draws = len(PROMPTS), config.samples
    terms = method.log_likelihood(
        latent.expand(prompts * draws, -1, -1, -1),
        normal(draws, *model.latent_shape).repeat(prompts, 1, 1, 1),
        torch.tensor([method.timestep(number) for number in range(draws)]).repeat(prompts),
        model.encode_text(PROMPTS).repeat_interleave(draws, 0),
    )
    return terms.unflatten(0, (prompts, draws)).mean(1)


def scene():
    return draw_scene(np.random.default_rng(0)).image


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_maps_agree_with_the_equation(name, samples):
    config, model = replace(CONFIG, samples=samples), loaded(name)
    noise = normal(samples, *model.latent_shape)
    expected = plain.log_likelihoods(model, PREDICTIONS[name], config, scene(), PROMPTS, noise)
    found = log_likelihoods(name, config)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found[1] - found[2]).abs().max() > 1e-4, "the prompts make no difference"


@pytest.mark.parametrize("decision", ["softmax", "argmax"])
def test_scores_follow_bayes_rule(decision):
    config = ElboConfig(decision=decision, temperature=0.05)
    likelihoods = -normal(3, 5, 6).abs()
    found = PixelLikelihood(loaded("tiny"), config).scores(likelihoods)
    assert found.shape == (2, 5, 6)
    np.testing.assert_allclose(found, plain.scores(config, likelihoods), atol=1e-6)


def test_a_pixel_best_explained_by_the_empty_prompt_is_background():
    likelihoods = torch.tensor([-0.1, -0.3, -0.2])[:, None, None]
    assert PixelLikelihood(loaded("tiny"), ElboConfig(decision="argmax")).scores(likelihoods).flatten().tolist() == [
        0,
        0,
    ]
    found = PixelLikelihood(loaded("tiny"), ElboConfig(temperature=0.1)).scores(likelihoods).flatten()
    assert found[0] < found[1] < 1 - found.sum()


def test_the_true_class_explains_its_pixels_best():
    """On the small model that ships: inside the shape the true class's prompt denoises better than another's."""
    model, drawn = loaded("shapes"), draw_scene(np.random.default_rng([7, 0]))
    true = drawn.classes[0]
    names = ["circle", "square", "triangle", "star", "cross", "heart"]
    other = next(index for index in range(1, 7) if index not in drawn.classes)
    method, draws = PixelLikelihood(model, ElboConfig(timesteps=[900])), 8
    terms = method.log_likelihood(
        model.encode(model.pixels(drawn.image)[None]).expand(2 * draws, -1, -1, -1),
        normal(draws, *model.latent_shape).repeat(2, 1, 1, 1),
        torch.full((2 * draws,), 900),
        model.encode_text([f"a photograph of {names[index - 1]}" for index in (true, other)]).repeat_interleave(
            draws, 0
        ),
    )
    right, wrong = terms.unflatten(0, (2, draws)).mean(1)
    inside = torch.from_numpy(drawn.labels == true)[2::4, 2::4]
    assert (right > wrong)[inside].float().mean() > 0.8


def test_draws_cycle_through_the_timesteps():
    method = PixelLikelihood(loaded("tiny"), CONFIG)
    assert [method.timestep(number) for number in range(5)] == [50, 900, 500, 50, 900]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": []}, "elbo.timesteps"),
        ({"timesteps": [1000]}, "0 to 999"),
        ({"timesteps": [-1]}, "0 to 999"),
        ({"samples": 0}, "`elbo.samples` 0"),
        ({"temperature": 0.0}, "`elbo.temperature` 0.0"),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(SettingError, match=message):
        PixelLikelihood(loaded("tiny"), replace(CONFIG, **change))
