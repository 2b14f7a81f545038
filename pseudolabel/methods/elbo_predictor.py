"""The ELBO baseline on samples: prompts, latents and many draws of noise in, class activation maps out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from pseudolabel.config import ElboConfig
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.methods.elbo import PixelLikelihood
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.batching import static_batches
from pseudolabel.runtime.fetching import fetch
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt

BACKGROUND_PROMPT = ""


@dataclass(frozen=True)
class Draw:
    """One row of a U-Net batch: an image's latent and noise, (c, h, w) each, at a timestep, and one of its prompts."""

    latent: torch.Tensor
    noise: torch.Tensor
    timestep: int
    prompt: str


class ElboPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: ElboConfig) -> None:
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        self.method = PixelLikelihood(self.model, config)

    def settings(self) -> dict[str, Any]:
        """All that the maps depend on beside the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps]]:
        """Every sample with its score maps, in their order."""
        samples = list(samples)
        maps = fetch(self._maps([(sample, self.prompts(sample)) for sample in samples if sample.classes]))
        none = torch.zeros(0, *self.model.latent_shape[1:]).half()
        for sample in samples:
            rows = next(maps) if sample.classes else none
            yield sample, ScoreMaps(sample.key, sample.classes, rows.numpy(), (sample.image.height, sample.image.width))

    def prompts(self, sample: Sample) -> list[str]:
        """The empty prompt and one for each of the sample's classes."""
        return [BACKGROUND_PROMPT, *(self._prompt(sample.key, index) for index in sample.classes)]

    def _prompt(self, key: str, index: int) -> str:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        return build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption).text

    def _maps(self, work: list[tuple[Sample, list[str]]]) -> Iterator[torch.Tensor]:
        """float16 (C, h, w) maps of every image."""
        terms = self._terms(work)
        for _, texts in work:
            total = torch.zeros((), device=self.model.device)
            for _ in range(self.config.samples):
                total = torch.stack([next(terms) for _ in texts]) + total
            # Consumers scale maps to [0, 1] at image size; stretched before, they lose least to float16.
            yield min_max(self.method.scores(total / self.config.samples)).half()

    def _terms(self, work: list[tuple[Sample, list[str]]]) -> Iterator[torch.Tensor]:
        """(h, w) terms of Eq. 3, draw by draw; batches have one size, the last one filled up by repetition."""
        encodings = TextEncodings(self.model, [text for _, texts in work for text in texts])
        for filled, count in static_batches(self._draws(work), self.context.batch):
            terms = self.method.log_likelihood(
                torch.stack([draw.latent for draw in filled]),
                torch.stack([draw.noise for draw in filled]),
                torch.tensor([draw.timestep for draw in filled]),
                torch.stack([encodings.plain(draw.prompt) for draw in filled]),
            )
            yield from terms[:count]

    def _draws(self, work: list[tuple[Sample, list[str]]]) -> Iterator[Draw]:
        """All prompts of an image for its first draw of noise, then for its second, and so on; images one by one."""
        for group, latents in encode_ahead(self.model, work, _image, self.context.batch, self.context.loaders):
            for (sample, texts), latent in zip(group, latents, strict=True):
                drawn = draw_noise(self.context.seed, "noise", sample.key, self.config.samples, self.model.latent_shape)
                for number, noise in enumerate(drawn):
                    yield from (Draw(latent, noise, self.method.timestep(number), text) for text in texts)


def _image(work: tuple[Sample, list[str]]) -> Image.Image:
    return work[0].image
