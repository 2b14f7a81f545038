"""The ELBO baseline on samples: prompts, latents and many draws of noise in, class activation maps out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pseudolabel.config import ElboConfig
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.methods.elbo import PixelLikelihood
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.batching import batched, bypass, static_batches
from pseudolabel.runtime.fetching import fetch
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import BATCH, TextEncodings
from pseudolabel.text.prompts import build_prompt

BACKGROUND_PROMPT = ""


@dataclass(frozen=True)
class Draw:
    """A row of a batch: an image's latent and one draw of noise, (c, h, w) each, at a timestep, and a prompt."""

    owner: Sample
    latent: torch.Tensor
    noise: torch.Tensor
    timestep: int
    embeddings: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """What the U-Net takes at once: B draws, each with one of the prompts of its image.

    Attributes:
        owners: the samples of the first draws; any further draws only fill the batch.
        latents: float32 (B, c, h, w), on the model's device.
        noise: float32 (B, c, h, w), standard normal.
        timesteps: int64 (B,).
        embeddings: (B, tokens, width) text embeddings.
    """

    owners: list[Sample]
    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    embeddings: torch.Tensor

    @classmethod
    def of(cls, draws: Sequence[Draw], count: int) -> "Batch":
        """Stack draws, of which the first `count` are to be kept."""
        return cls(
            [draw.owner for draw in draws[:count]],
            torch.stack([draw.latent for draw in draws]),
            torch.stack([draw.noise for draw in draws]),
            torch.tensor([draw.timestep for draw in draws]),
            torch.stack([draw.embeddings for draw in draws]),
        )


class ElboPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: ElboConfig) -> None:
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        self.method = PixelLikelihood(self.model, config)

    def settings(self) -> dict[str, Any]:
        """Everything that the maps depend on besides the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def view(self, image: Image.Image) -> Image.Image:
        """The image stretched to the model's square."""
        return self.model.square(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps]]:
        """Every sample with its score maps, in order."""
        for sample, maps in bypass(samples, lambda sample: bool(sample.classes), self._maps, self._no_maps):
            yield sample, ScoreMaps(sample.key, sample.classes, maps, sample.size)

    def prompts(self, sample: Sample) -> list[str]:
        """The empty prompt and one for each of the sample's classes."""
        return [BACKGROUND_PROMPT, *(self._prompt(sample.key, index) for index in sample.classes)]

    def _maps(self, samples: Iterable[Sample]) -> Iterator[np.ndarray]:
        """float16 (C, h, w) maps of samples with at least one class."""
        return (maps.numpy() for _, maps in fetch(self._collect(self._run(self._plan(samples)))))

    def _no_maps(self, _: Sample) -> np.ndarray:
        return np.zeros((0, *self.model.latent_shape[1:]), np.float16)

    def _plan(self, samples: Iterable[Sample]) -> Iterator[Batch]:
        for draws, count in static_batches(self._draws(samples), self.context.batch):
            yield Batch.of(draws, count)

    def _run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Each batch with its terms of Eq. 3, float32 (B, h, w) on the model's device."""
        for batch in batches:
            yield batch, self.method.log_likelihood(batch.latents, batch.noise, batch.timesteps, batch.embeddings)

    def _collect(self, results: Iterable[tuple[Batch, torch.Tensor]]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """Each sample with its float16 (C, h, w) maps, once the terms of all its draws are there."""
        terms: list[torch.Tensor] = []
        zero = torch.zeros((), device=self.model.device)
        total, draws = zero, 0
        for batch, rows in results:
            for sample, row in zip(batch.owners, rows[: len(batch.owners)], strict=True):
                terms.append(row)
                if len(terms) == 1 + len(sample.classes):
                    total, draws, terms = torch.stack(terms) + total, draws + 1, []
                if draws == self.config.samples:
                    # Consumers scale maps to [0, 1] at image size; scaled before, they lose least in float16.
                    yield sample, min_max(self.method.scores(total / draws)).half()
                    total, draws = zero, 0

    def _draws(self, samples: Iterable[Sample]) -> Iterator[Draw]:
        """All prompts of an image for its first draw of noise, then for its second, and so on; images one by one."""
        work = self._with_text(samples)
        for group, latents in encode_ahead(self.model, work, self._view, self.context.batch, self.context.loaders):
            for (sample, texts), latent in zip(group, latents, strict=True):
                drawn = draw_noise(self.context.seed, "noise", sample.key, self.config.samples, self.model.latent_shape)
                for number, noise in enumerate(drawn):
                    timestep = self.method.timestep(number)
                    yield from (Draw(sample, latent, noise, timestep, embeddings) for embeddings in texts)

    def _with_text(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor]]]:
        """Samples with the encodings of their prompts, which are made for many samples at once."""
        for group in batched(samples, BATCH):
            texts = [self.prompts(sample) for sample in group]
            encodings = TextEncodings(self.model, [text for own in texts for text in own])
            for sample, own in zip(group, texts, strict=True):
                yield sample, [encodings.plain(text) for text in own]

    def _prompt(self, key: str, index: int) -> str:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        return build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption).text

    def _view(self, work: tuple[Sample, list[torch.Tensor]]) -> Image.Image:
        return work[0].viewed(self.view)
