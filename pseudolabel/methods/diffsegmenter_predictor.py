"""DiffSegmenter on samples: prompts, latents and noise in, class activation maps out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import tee
from typing import Any

import numpy as np
import torch
from PIL import Image

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import SampleError
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.batching import batched, static_batches
from pseudolabel.runtime.fetching import fetch
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import BATCH, TextEncodings
from pseudolabel.text.prompts import TokenWeights, build_prompt, token_weights


@dataclass(frozen=True)
class Prompted:
    """A sample with the prompts of its classes, or with why one of them cannot be made."""

    sample: Sample
    tokens: list[TokenWeights]
    failure: SampleError | None = None


@dataclass(frozen=True)
class Pair:
    """An image and one of its classes.

    Attributes:
        latent: float32 (c, h, w) on the model's device.
        noise: float32 (T or 1, c, h, w), standard normal, the same for all classes of an image.
        embeddings: (tokens, width), the prompt's text encoding.
        weights: float32 (tokens,) weights of the tokens that make the map.
    """

    latent: torch.Tensor
    noise: torch.Tensor
    embeddings: torch.Tensor
    weights: torch.Tensor


class DiffSegmenterPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: DiffSegmenterConfig) -> None:
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        self.method = CompletedAttention(self.model, config)
        # The timesteps of a pair go through the U-Net together, so their mean needs no memory of earlier batches.
        self.pairs = max(1, context.batch // len(config.timesteps))

    def settings(self) -> dict[str, Any]:
        """All that the maps depend on beside the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps | SampleError]]:
        """Every sample with its score maps, or with what is wrong with it, in their order."""
        in_order, ahead = tee(self._prompt(sample) for sample in samples)
        maps = (row for batch in fetch(self._batches(ahead)) for row in batch.numpy())
        for prompted in in_order:
            sample = prompted.sample
            yield sample, prompted.failure or self._collect(sample, [next(maps) for _ in prompted.tokens])

    def _prompt(self, sample: Sample) -> Prompted:
        try:
            return Prompted(sample, [self._tokens(sample.key, index) for index in sample.classes])
        except SampleError as error:
            return Prompted(sample, [], error)

    def _tokens(self, key: str, index: int) -> TokenWeights:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        return token_weights(self.model.tokenizer, prompt, self.config)

    def _batches(self, prompted: Iterable[Prompted]) -> Iterator[torch.Tensor]:
        """float16 (P, h, w) maps on the model's device, batch by batch."""
        for batch, count in static_batches(self._pairs(prompted), self.pairs):
            maps = self.method(
                torch.stack([pair.latent for pair in batch]),
                torch.stack([pair.noise for pair in batch]),
                torch.stack([pair.embeddings for pair in batch]),
                torch.stack([pair.weights for pair in batch]),
            )
            # Self-attention leaves narrow maps; stretched to [0, 1], they lose least to float16.
            yield min_max(maps[:count]).half()

    def _pairs(self, prompted: Iterable[Prompted]) -> Iterator[Pair]:
        """The classes of all images; an image is encoded once however many it has."""
        draw = self._draw_posterior if self.config.vae == "sample" else None
        work = self._with_text(one for one in prompted if one.tokens)
        for group, latents in encode_ahead(self.model, work, _image, self.pairs, self.context.loaders, draw):
            for (one, text), latent in zip(group, latents, strict=True):
                noise = self._draw_noise(one.sample.key)
                for tokens in one.tokens:
                    yield Pair(latent, noise, text.emphasised(tokens.text, tokens.emphasis), tokens.weights)

    def _with_text(self, prompted: Iterable[Prompted]) -> Iterator[tuple[Prompted, TextEncodings]]:
        """Samples with the encodings of their prompts, made for many samples at once."""
        for group in batched(prompted, BATCH):
            encodings = TextEncodings(self.model, [tokens.text for one in group for tokens in one.tokens])
            yield from ((one, encodings) for one in group)

    def _collect(self, sample: Sample, rows: list[np.ndarray]) -> ScoreMaps:
        stack = np.stack(rows) if rows else np.zeros((0, *self.model.latent_shape[1:]), np.float16)
        return ScoreMaps(sample.key, sample.classes, stack, (sample.image.height, sample.image.width))

    def _draw_posterior(self, work: tuple[Prompted, TextEncodings]) -> torch.Tensor:
        return self._draw(work[0].sample.key, "posterior", 1)[0]

    def _draw_noise(self, key: str) -> torch.Tensor:
        return self._draw(key, "noise", len(self.config.timesteps) if self.config.noise == "per_timestep" else 1)

    def _draw(self, key: str, purpose: str, count: int) -> torch.Tensor:
        return draw_noise(self.context.seed, purpose, key, count, self.model.latent_shape)


def _image(work: tuple[Prompted, TextEncodings]) -> Image.Image:
    return work[0].sample.image
