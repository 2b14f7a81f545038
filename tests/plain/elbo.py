"""The ELBO baseline written plainly from Eq. 3: one prompt, one timestep and one noise at a time.

Nothing here comes from `pseudolabel.diffusion`, `pseudolabel.text` or `pseudolabel.methods`, save the loaded parts of
the model: it is what the batched way is checked against.
"""

import numpy as np
import torch
from PIL import Image

from tests.plain.diffsegmenter import add_noise, encode_image, encode_text, pool_text, run_unet


@torch.inference_mode()
def log_likelihoods(model, prediction: str, config, image: Image.Image, prompts: list[str], noise: torch.Tensor):
    """Minus the mean squared error of the noise, over channels and draws: float32 (prompts, h, w).

    `noise` is (draws, c, h, w); draw number s is taken at timestep number s modulo how many there are.
    """
    latent = encode_image(model, image, None)
    rows = []
    for prompt in prompts:
        embeddings, pooled = encode_text(model, prompt), pool_text(model, prompt)
        total = torch.zeros(())
        for number, epsilon in enumerate(noise):
            timestep = config.timesteps[number % len(config.timesteps)]
            predicted = predict_noise(
                model, prediction, add_noise(model, latent, epsilon, timestep), timestep, embeddings, pooled
            )
            total = total + (epsilon - predicted) ** 2
        rows.append(-total.mean(0) / len(noise))
    return torch.stack(rows)


def predict_noise(
    model, prediction: str, noised: torch.Tensor, timestep: int, embeddings: torch.Tensor, pooled
) -> torch.Tensor:
    """The U-Net's noise; a model that predicts v gives the clean latent first, and that the noise."""
    output = run_unet(model, noised[None], timestep, embeddings, pooled)[0]
    if prediction == "epsilon":
        return output
    left = float(model.alphas_cumprod[timestep])
    clean = left**0.5 * noised - (1 - left) ** 0.5 * output
    return (noised - left**0.5 * clean) / (1 - left) ** 0.5


def scores(config, likelihoods: torch.Tensor) -> np.ndarray:
    """float32 (classes, h, w) by Bayes' rule, pixel by pixel; the first of the likelihoods is background's."""
    values = likelihoods.double().numpy() / config.temperature
    result = np.zeros_like(values)
    for row, column in np.ndindex(*values.shape[1:]):
        pixel = values[:, row, column]
        if config.decision == "argmax":
            result[pixel.argmax(), row, column] = 1
        else:
            shares = np.exp(pixel - pixel.max())
            result[:, row, column] = shares / shares.sum()
    return result[1:].astype(np.float32)
