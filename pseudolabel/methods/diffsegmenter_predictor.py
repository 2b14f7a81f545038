"""DiffSegmenter on samples: prompts, latents and noise in, class activation maps out."""

from collections.abc import Iterable, Iterator, Sequence
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
    """A sample with the prompts of its classes, or the failure to make one of them."""

    sample: Sample
    tokens: list[TokenWeights]
    failure: SampleError | None = None


@dataclass(frozen=True)
class Pair:
    """An image and one of its classes: a row of a batch."""

    owner: Prompted
    latent: torch.Tensor
    noise: torch.Tensor
    embeddings: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """What the U-Net takes at once: P pairs of an image and one of its classes.

    Attributes:
        owners: the samples of the first pairs; any further pairs only fill the batch.
        latents: float32 (P, c, h, w), on the model's device.
        noise: float32 (P, T or 1, c, h, w), standard normal, the same for all classes of an image.
        embeddings: (P, tokens, width) text embeddings of the pairs' prompts.
        weights: float32 (P, tokens), how much each token counts in the map.
    """

    owners: list[Prompted]
    latents: torch.Tensor
    noise: torch.Tensor
    embeddings: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair], count: int) -> "Batch":
        """Stack pairs, of which the first `count` are to be kept."""
        return cls(
            [pair.owner for pair in pairs[:count]],
            torch.stack([pair.latent for pair in pairs]),
            torch.stack([pair.noise for pair in pairs]),
            torch.stack([pair.embeddings for pair in pairs]),
            torch.stack([pair.weights for pair in pairs]),
        )


class DiffSegmenterPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: DiffSegmenterConfig) -> None:
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        self.method = CompletedAttention(self.model, config)
        # All timesteps of a pair are in one batch, so that their mean needs nothing from earlier batches.
        self.pairs = max(1, context.batch // len(config.timesteps))

    def settings(self) -> dict[str, Any]:
        """Everything that the maps depend on besides the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def view(self, image: Image.Image) -> Image.Image:
        """The image stretched to the model's square."""
        return self.model.square(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps | SampleError]]:
        """Every sample with its score maps, or with its failure, in order."""
        prompted = (self._prompt(sample) for sample in samples)
        for one, maps in bypass(prompted, lambda one: bool(one.tokens), self._maps, self._no_maps):
            sample = one.sample
            yield sample, one.failure or ScoreMaps(sample.key, sample.classes, maps, sample.size)

    def _maps(self, prompted: Iterable[Prompted]) -> Iterator[np.ndarray]:
        """float16 (C, h, w) maps of samples with at least one prompt."""
        return self._collect(fetch(self._run(self._plan(prompted))))

    def _no_maps(self, _: Prompted) -> np.ndarray:
        return np.zeros((0, *self.model.latent_shape[1:]), np.float16)

    def _plan(self, prompted: Iterable[Prompted]) -> Iterator[Batch]:
        """Batches of the classes of all images; an image is encoded once for all of its classes."""
        for pairs, count in static_batches(self._pairs(prompted), self.pairs):
            yield Batch.of(pairs, count)

    def _run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Each batch with the float16 (len(owners), h, w) maps of its pairs, on the model's device."""
        for batch in batches:
            maps = self.method(batch.latents, batch.noise, batch.embeddings, batch.weights)
            # Self-attention leaves a narrow range of values; scaled to [0, 1], they lose least in float16.
            yield batch, min_max(maps[: len(batch.owners)]).half()

    def _collect(self, results: Iterable[tuple[Batch, torch.Tensor]]) -> Iterator[np.ndarray]:
        """The maps of each sample, as soon as the last of them is there."""
        rows: list[np.ndarray] = []
        for batch, maps in results:
            for one, row in zip(batch.owners, maps.numpy(), strict=True):
                rows.append(row)
                if len(rows) == len(one.tokens):
                    yield np.stack(rows)
                    rows = []

    def _prompt(self, sample: Sample) -> Prompted:
        try:
            return Prompted(sample, [self._tokens(sample.key, index) for index in sample.classes])
        except SampleError as error:
            return Prompted(sample, [], error)

    def _tokens(self, key: str, index: int) -> TokenWeights:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        return token_weights(self.model.tokenizer, prompt, self.config)

    def _pairs(self, prompted: Iterable[Prompted]) -> Iterator[Pair]:
        draw = self._draw_posterior if self.config.vae == "sample" else None
        work = self._with_text(prompted)
        for group, latents in encode_ahead(self.model, work, self._view, self.pairs, self.context.loaders, draw):
            for (one, text), latent in zip(group, latents, strict=True):
                noise = self._draw_noise(one.sample.key)
                for tokens in one.tokens:
                    yield Pair(one, latent, noise, text.emphasised(tokens.text, tokens.emphasis), tokens.weights)

    def _with_text(self, prompted: Iterable[Prompted]) -> Iterator[tuple[Prompted, TextEncodings]]:
        """Samples with the encodings of their prompts, which are made for many samples at once."""
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
