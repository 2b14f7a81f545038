"""DiffSegmenter on samples: prompts, latents and noise in, class activation maps out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
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
from pseudolabel.runtime.batching import batched, bypass, static_batches
from pseudolabel.runtime.fetching import fetch
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import BATCH, TextEncodings
from pseudolabel.text.prompts import TokenWeights, build_prompt, token_weights


@dataclass(frozen=True, eq=False)
class Prompted:
    """A sample with the prompts of its classes, or the error for one of them."""

    sample: Sample
    tokens: list[TokenWeights]
    failure: SampleError | None = None


@dataclass(frozen=True)
class Pair:
    """A row of a batch: an image and one of its classes.

    Attributes:
        owner: the sample.
        latent: float32 (c, h, w), on the model's device.
        noise: float32 (T or 1, c, h, w), standard normal, the same for all classes of an image.
        embeddings: (tokens, width) text embeddings of the prompt.
        weights: float32 (tokens,), the token weights.
    """

    owner: Prompted
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
        # All timesteps of a pair are in one batch, which computes their mean.
        self.pairs_per_batch = max(1, context.batch // len(config.timesteps))

    def settings(self) -> dict[str, Any]:
        """All that the maps depend on besides the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def view(self, image: Image.Image) -> Image.Image:
        """The image stretched to the model's square."""
        return self.model.square(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps | SampleError]]:
        """Every sample with its score maps, or with its failure, in order."""
        prompted = (self.prompt(sample) for sample in samples)
        for one, maps in bypass(prompted, lambda one: bool(one.tokens), self._maps, self._no_maps):
            sample = one.sample
            yield sample, one.failure or ScoreMaps(sample.key, sample.classes, maps, sample.size)

    def _maps(self, prompted: Iterable[Prompted]) -> Iterator[np.ndarray]:
        """float16 (C, h, w) maps of samples with at least one prompt."""
        return self._collect(fetch(self._run(self.pairs(prompted))))

    def _no_maps(self, _: Prompted) -> np.ndarray:
        return np.zeros((0, *self.model.latent_shape[1:]), np.float16)

    def _run(self, pairs: Iterable[Pair]) -> Iterator[tuple[list[Prompted], torch.Tensor]]:
        """The samples of each batch's pairs with their float16 (pairs, h, w) maps, on the model's device."""
        for batch, count in static_batches(pairs, self.pairs_per_batch):
            maps = self.method(
                torch.stack([pair.latent for pair in batch]),
                torch.stack([pair.noise for pair in batch]),
                torch.stack([pair.embeddings for pair in batch]),
                torch.stack([pair.weights for pair in batch]),
            )
            # Self-attention leaves a narrow range of values; scaled to [0, 1], they lose least in float16.
            yield [pair.owner for pair in batch[:count]], min_max(maps[:count]).half()

    def _collect(self, results: Iterable[tuple[list[Prompted], torch.Tensor]]) -> Iterator[np.ndarray]:
        """The stacked maps of each sample."""
        rows: list[np.ndarray] = []
        for owners, maps in results:
            for one, row in zip(owners, maps.numpy(), strict=True):
                rows.append(row)
                if len(rows) == len(one.tokens):
                    yield np.stack(rows)
                    rows = []

    def prompt(self, sample: Sample) -> Prompted:
        """The sample with the prompts of its classes."""
        try:
            return Prompted(sample, [self._tokens(sample.key, index) for index in sample.classes])
        except SampleError as error:
            return Prompted(sample, [], error)

    def _tokens(self, key: str, index: int) -> TokenWeights:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        return token_weights(self.model.tokenizer, prompt, self.config)

    def pairs(self, prompted: Iterable[Prompted]) -> Iterator[Pair]:
        """The pairs of samples, in order."""
        draw = self._draw_posterior if self.config.vae == "sample" else None
        work = self._with_text(prompted)
        for group, latents in encode_ahead(
            self.model, work, self._view, self.pairs_per_batch, self.context.loaders, draw
        ):
            for (one, text), latent in zip(group, latents, strict=True):
                noise = self._draw_noise(one.sample.key)
                for tokens in one.tokens:
                    yield Pair(one, latent, noise, text.emphasised(tokens.text, tokens.emphasis), tokens.weights)

    def _with_text(self, prompted: Iterable[Prompted]) -> Iterator[tuple[Prompted, TextEncodings]]:
        """Samples with the encodings of their prompts, in batches."""
        for group in batched(prompted, BATCH):
            encodings = TextEncodings(self.model, [tokens.text for one in group for tokens in one.tokens])
            yield from ((one, encodings) for one in group)

    def _view(self, work: tuple[Prompted, TextEncodings]) -> Image.Image:
        return work[0].sample.viewed(self.view)

    def _draw_posterior(self, work: tuple[Prompted, TextEncodings]) -> torch.Tensor:
        return self._draw(work[0].sample.key, "posterior", 1)[0]

    def _draw_noise(self, key: str) -> torch.Tensor:
        return self._draw(key, "noise", len(self.config.timesteps) if self.config.noise == "per_timestep" else 1)

    def _draw(self, key: str, purpose: str, count: int) -> torch.Tensor:
        return draw_noise(self.context.seed, purpose, key, count, self.model.latent_shape)
