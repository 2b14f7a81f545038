from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image

from tests.plain.architectures import SCHEDULE, loaded, tiny


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_noise_is_added_by_the_formula_and_as_the_scheduler():
    model = loaded("tiny")
    latents, noise = normal(4, *model.latent_shape), normal(4, *model.latent_shape, seed=1)
    timesteps = torch.tensor([0, 50, 150, 999])
    found = model.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(found, DDPMScheduler(**SCHEDULE).add_noise(latents, noise, timesteps))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    for row, timestep in enumerate(timesteps.tolist()):
        left = np.prod(1 - betas[: timestep + 1])
        expected = left**0.5 * latents[row] + (1 - left) ** 0.5 * noise[row]
        torch.testing.assert_close(found[row], expected.float(), atol=1e-5, rtol=1e-5)


def test_pixels_are_stretched_to_the_square_and_scaled_to_minus_one_to_one():
    model = loaded("tiny")
    columns = np.zeros((30, 200, 3), np.uint8)
    columns[:, 100:] = (255, 51, 0)
    pixels = model.pixels(Image.fromarray(columns))
    assert pixels.shape == (3, 128, 128)
    assert pixels.dtype == torch.float32
    assert (pixels[:, :, :60] == -1).all()
    right = torch.tensor([1.0, -0.6, -1.0])[:, None, None]
    torch.testing.assert_close(pixels[:, :, -60:], right.expand(3, 128, 60))


def test_latents_are_the_mean_or_a_sample_of_the_posterior(tmp_path):
    model = loaded("tiny")
    tiny(tmp_path)
    vae = AutoencoderKL.from_pretrained(tmp_path, subfolder="vae")
    pixels, noise = normal(2, 3, 128, 128).clamp(-1, 1), normal(2, *model.latent_shape, seed=1)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    assert vae.config.scaling_factor == 0.18215
    torch.testing.assert_close(model.encode(pixels), posterior.mean * 0.18215)
    torch.testing.assert_close(model.encode(pixels, noise), (posterior.mean + posterior.std * noise) * 0.18215)


@pytest.mark.parametrize("name", ["tiny", "shapes"])
def test_text_is_padded_and_truncated_to_the_tokenizer_s_length(name):
    model = loaded(name)
    long = "a photograph of " + "circle " * 100
    embeddings = model.encode_text(["", "a photograph of circle", long])
    assert embeddings.shape == (3, 77, model.unet.config.cross_attention_dim)
    # CLIP looks back only, so the words that fit are encoded as if nothing followed.
    shorter = model.encode_text(["a photograph of " + "circle " * 20])[0]
    torch.testing.assert_close(embeddings[2, :20], shorter[:20])


def test_latent_shape_follows_the_image_size():
    model = replace(loaded("tiny"), image_size=320)
    assert model.latent_shape == (4, 40, 40)
    assert model.pixels(Image.new("RGB", (5, 7))).shape == (3, 320, 320)
