"""The ELBO baseline (Wang et al. 2023, Eq. 3): each pixel gets the class whose prompt denoises it best."""

import torch
import torch.nn.functional as F

from pseudolabel.config import ElboConfig
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SettingError


class PixelLikelihood:
    """Log-likelihoods of prompts per latent pixel, one draw of timestep and noise at a time."""

    def __init__(self, model: DiffusionModel, config: ElboConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if the timesteps, the samples or the temperature are out of range.
        """
        self.model, self.config = model, config
        steps = len(model.alphas_cumprod)
        if not config.timesteps or not all(0 <= t < steps for t in config.timesteps):
            raise SettingError(f"`elbo.timesteps` {config.timesteps}: give one or more from 0 to {steps - 1}")
        if config.samples < 1:
            raise SettingError(f"`elbo.samples` {config.samples}: give at least 1")
        if config.temperature <= 0:
            raise SettingError(f"`elbo.temperature` {config.temperature}: give more than 0")

    def timestep(self, draw: int) -> int:
        """The timestep of a draw; draws go through the timesteps in turn."""
        return self.config.timesteps[draw % len(self.config.timesteps)]

    def log_likelihood(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """One term of Eq. 3 per row: the negative mean over channels of (noise - predicted noise) ** 2.

        Args:
            latents: float32 (B, c, h, w) scaled latents.
            noise: float32 (B, c, h, w), standard normal.
            timesteps: int64 (B,).
            embeddings: (B, rows, width) text encodings of the prompts.

        Returns:
            float32 (B, h, w) on the model's device, at most 0.
        """
        latents, noise = self.model.upload(latents), self.model.upload(noise)
        noised = self.model.add_noise(latents, noise, timesteps)
        return -(noise - self.model.predict_noise(noised, timesteps, embeddings)).square().mean(1)

    def scores(self, log_likelihoods: torch.Tensor) -> torch.Tensor:
        """Bayes' rule with equal priors, per pixel.

        Args:
            log_likelihoods: float32 (1 + C, h, w), means over the draws; the empty prompt, for background, is first.

        Returns:
            float32 (C, h, w) in [0, 1]: the probability of each class, or 1 where it is the most likely, else 0.
        """
        if self.config.decision == "softmax":
            return (log_likelihoods / self.config.temperature).softmax(0)[1:]
        winners = F.one_hot(log_likelihoods.argmax(0), len(log_likelihoods))
        return winners.permute(2, 0, 1)[1:].float()
