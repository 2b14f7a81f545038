"""The ELBO baseline on samples: prompts, latents and draws of noise in, class activation maps out."""

from collections.abc import Iterable, Iterator
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
from pseudolabel.runtime.halving import Halving
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import BATCH, TextEncodings
from pseudolabel.text.prompts import build_prompt

BACKGROUND_PROMPT = ""


@dataclass(frozen=True)
class Draw:
    """A row of a batch: an image, a draw of noise, and one of the image's prompts.

    Attributes:
        owner: the sample.
        latent: float32 (c, h, w), on the model's device.
        noise: float32 (c, h, w), standard normal.
        timestep: of the noise.
        embeddings: (rows, width) text embeddings of the prompt.
    """

    owner: Sample
    latent: torch.Tensor
    noise: torch.Tensor
    timestep: int
    embeddings: torch.Tensor


class ElboPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: ElboConfig) -> None:
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        self.method, self.in_parts = PixelLikelihood(self.model, config), Halving()

    def settings(self) -> dict[str, Any]:
        """All that the maps depend on besides the diffusion model and the labels."""
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
        return (maps.numpy() for _, maps in fetch(self._collect(self._run(self._draws(samples)))))

    def _no_maps(self, _: Sample) -> np.ndarray:
        return np.zeros((0, *self.model.latent_shape[1:]), np.float16)

    def _run(self, draws: Iterable[Draw]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """Each draw's sample and term of Eq. 3, float32 (h, w) on the model's device."""
        for batch, count in static_batches(draws, self.context.batch):
            parts = self.in_parts(
                self.method.log_likelihood,
                torch.stack([draw.latent for draw in batch]),
                torch.stack([draw.noise for draw in batch]),
                torch.tensor([draw.timestep for draw in batch]),
                torch.stack([draw.embeddings for draw in batch]),
            )
            terms = torch.cat(parts)
            yield from zip([draw.owner for draw in batch[:count]], terms[:count], strict=True)

    def _collect(self, rows: Iterable[tuple[Sample, torch.Tensor]]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """Each sample with its float16 (C, h, w) maps, from the terms of all its draws."""
        terms: list[torch.Tensor] = []
        zero = torch.zeros((), device=self.model.device)
        total, draws = zero, 0
        for sample, row in rows:
            terms.append(row)
            if len(terms) == 1 + len(sample.classes):
                total, draws, terms = torch.stack(terms) + total, draws + 1, []
            if draws == self.config.samples:
                # Consumers scale maps to [0, 1] at image size; scaled before, they lose least in float16.
                yield sample, min_max(self.method.scores(total / draws)).half()
                total, draws = zero, 0

    def _draws(self, samples: Iterable[Sample]) -> Iterator[Draw]:
        """Per image and draw of noise, a row for each prompt."""
        work = self._with_text(samples)
        for group, latents in encode_ahead(self.model, work, self._view, self.context.batch, self.context.loaders):
            for (sample, texts), latent in zip(group, latents, strict=True):
                drawn = draw_noise(self.context.seed, "noise", sample.key, self.config.samples, self.model.latent_shape)
                for number, noise in enumerate(drawn):
                    timestep = self.method.timestep(number)
                    yield from (Draw(sample, latent, noise, timestep, embeddings) for embeddings in texts)

    def _with_text(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor]]]:
        """Samples with the encodings of their prompts, in batches."""
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
