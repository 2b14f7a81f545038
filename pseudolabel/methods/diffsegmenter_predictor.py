"""DiffSegmenter on samples: prompts, latents and noise in, class activation maps out."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import SampleError, SettingError
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.runtime.batching import batched, bypass, static_batches
from pseudolabel.runtime.fetching import fetch
from pseudolabel.runtime.halving import Halving
from pseudolabel.score_maps import min_max
from pseudolabel.text.encoder import BATCH, TextEncodings
from pseudolabel.text.joint_prompt import build_joint_prompt, fits
from pseudolabel.text.prompts import Prompt, build_prompt, token_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sentence:
    """A prompt that names K classes of an image.

    Attributes:
        text: the sentence.
        weights: float32 (K, tokens), the token weights of each class.
        emphasis: float32 (tokens,), the factor on each token's text encoding.
    """

    text: str
    weights: torch.Tensor
    emphasis: torch.Tensor


@dataclass(frozen=True, eq=False)
class Prompted:
    """A sample with the sentences that name its classes in their order, or the error for one of them."""

    sample: Sample
    sentences: list[Sentence]
    failure: SampleError | None = None


@dataclass(frozen=True)
class Row:
    """A row of a batch: an image and one of its sentences.

    Attributes:
        owner: the sample.
        latent: float32 (c, h, w), on the model's device.
        noise: float32 (T or 1, c, h, w), standard normal, the same for all sentences of an image.
        embeddings: (rows, width) text embeddings of the sentence.
        weights: float32 (K, tokens), the token weights.
    """

    owner: Prompted
    latent: torch.Tensor
    noise: torch.Tensor
    embeddings: torch.Tensor
    weights: torch.Tensor


class DiffSegmenterPredictor:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: DiffSegmenterConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if they do not fit the model, or if there are captions, which a joint prompt does not take.
        """
        self.model, self.vocabulary, self.captions = context.diffusion, context.vocabulary, context.captions
        self.config, self.context = config, context
        if config.prompt == "joint" and self.captions is not None:
            raise SettingError("`diffsegmenter.prompt` joint takes no captions: leave them out")
        self.method = CompletedAttention(self.model, config)
        self.in_parts, self.too_long = Halving(), 0
        # All timesteps of a row are in one batch, which computes their mean.
        self.rows_per_batch = max(1, context.batch // len(config.timesteps))

    def settings(self) -> dict[str, Any]:
        """All that the maps depend on besides the diffusion model and the labels."""
        return {**asdict(self.config), "template": self.vocabulary.template}

    def view(self, image: Image.Image) -> Image.Image:
        """The image stretched to the model's square."""
        return self.model.square(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, ScoreMaps | SampleError]]:
        """Every sample with its score maps, or with its failure, in order."""
        before = self.too_long
        prompted = (self.prompt(sample) for sample in samples)
        for one, maps in bypass(prompted, lambda one: bool(one.sentences), self._maps, self._no_maps):
            sample = one.sample
            yield sample, one.failure or ScoreMaps(sample.key, sample.classes, maps, sample.size)
        if self.too_long > before:
            log.warning(
                "%d images so far have classes that do not fit into one prompt of %d tokens: one prompt per class",
                self.too_long,
                self.model.tokenizer.model_max_length,
            )

    def _maps(self, prompted: Iterable[Prompted]) -> Iterator[np.ndarray]:
        """float16 (C, h, w) maps of samples with at least one class."""
        return self._collect(fetch(self._run(self.rows(prompted))))

    def _no_maps(self, _: Prompted) -> np.ndarray:
        return np.zeros((0, *self.model.latent_shape[1:]), np.float16)

    def _run(self, rows: Iterable[Row]) -> Iterator[tuple[list[Prompted], torch.Tensor]]:
        """The samples of each batch's rows with their float16 (rows, K, h, w) maps, on the model's device.

        K is the largest number of classes that a row of the batch has; the maps behind a row's own are zeros.
        """
        for batch, count in static_batches(rows, self.rows_per_batch):
            parts = self.in_parts(
                self.method,
                torch.stack([row.latent for row in batch]),
                torch.stack([row.noise for row in batch]),
                torch.stack([row.embeddings for row in batch]),
                pad_sequence([row.weights for row in batch], batch_first=True),
            )
            maps = torch.cat(parts)
            # Self-attention leaves a narrow range of values; scaled to [0, 1], they lose least in float16.
            yield [row.owner for row in batch[:count]], min_max(maps[:count]).half()

    def _collect(self, results: Iterable[tuple[list[Prompted], torch.Tensor]]) -> Iterator[np.ndarray]:
        """The stacked maps of each sample."""
        rows: list[np.ndarray] = []
        for owners, maps in results:
            for one, row in zip(owners, maps.numpy(), strict=True):
                rows.append(row[: len(one.sentences[len(rows)].weights)])
                if len(rows) == len(one.sentences):
                    yield np.concatenate(rows)
                    rows = []

    def prompt(self, sample: Sample) -> Prompted:
        """The sample with the sentences that name its classes."""
        try:
            if self.config.prompt == "joint" and (joint := self._joint(sample.classes)):
                return Prompted(sample, [joint])
            return Prompted(sample, [self._single(sample.key, index) for index in sample.classes])
        except SampleError as error:
            return Prompted(sample, [], error)

    def _single(self, key: str, index: int) -> Sentence:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        tokens = token_weights(self.model.tokenizer, prompt, self.config)
        return Sentence(tokens.text, tokens.weights[None], tokens.emphasis)

    def _joint(self, classes: tuple[int, ...]) -> Sentence | None:
        """One sentence for all classes; None where there are none, or where they do not fit."""
        if not classes:
            return None
        entries = [self.vocabulary.classes[index - 1] for index in classes]
        prompt = build_joint_prompt(self.vocabulary.template, entries, tail=self.config.joint_tail)
        if not fits(self.model.tokenizer, prompt):
            self.too_long += len(classes) > 1
            return None
        config = replace(self.config, modifiers="none")  # what follows a class is another class, or the tail
        tokens = [token_weights(self.model.tokenizer, Prompt(prompt.text, span, None), config) for span in prompt.spans]
        emphasis = torch.stack([one.emphasis for one in tokens]).prod(0)  # no token belongs to two classes
        return Sentence(prompt.text, torch.stack([one.weights for one in tokens]), emphasis)

    def rows(self, prompted: Iterable[Prompted]) -> Iterator[Row]:
        """The rows of samples, in order."""
        draw = self._draw_posterior if self.config.vae == "sample" else None
        work = self._with_text(prompted)
        for group, latents in encode_ahead(
            self.model, work, self._view, self.rows_per_batch, self.context.loaders, draw
        ):
            for (one, text), latent in zip(group, latents, strict=True):
                noise = self._draw_noise(one.sample.key)
                for sentence in one.sentences:
                    embeddings = text.emphasised(sentence.text, sentence.emphasis)
                    yield Row(one, latent, noise, embeddings, sentence.weights)

    def _with_text(self, prompted: Iterable[Prompted]) -> Iterator[tuple[Prompted, TextEncodings]]:
        """Samples with the encodings of their prompts, in batches."""
        for group in batched(prompted, BATCH):
            texts = [sentence.text for one in group for sentence in one.sentences]
            encodings = TextEncodings(self.model, texts, self.config.emphasis)
            yield from ((one, encodings) for one in group)

    def _view(self, work: tuple[Prompted, TextEncodings]) -> Image.Image:
        return work[0].sample.viewed(self.view)

    def _draw_posterior(self, work: tuple[Prompted, TextEncodings]) -> torch.Tensor:
        return self._draw(work[0].sample.key, "posterior", 1)[0]

    def _draw_noise(self, key: str) -> torch.Tensor:
        return self._draw(key, "noise", len(self.config.timesteps) if self.config.noise == "per_timestep" else 1)

    def _draw(self, key: str, purpose: str, count: int) -> torch.Tensor:
        return draw_noise(self.context.seed, purpose, key, count, self.model.latent_shape)
