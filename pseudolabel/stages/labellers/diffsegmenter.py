"""DiffSegmenter on samples: prompts, latents and noise in, class activation maps out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.methods.diffsegmenter import DiffSegmenter
from pseudolabel.methods.score_maps import min_max
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.sources.entry import BadSample
from pseudolabel.stages.labellers.noise import draw_noise
from pseudolabel.text.captions import Captions
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import PromptError, TokenWeights, build_prompt, token_weights
from pseudolabel.vocabulary import Vocabulary


@dataclass(frozen=True)
class Pair:
    """A sample and the prompt of one of its classes."""

    sample: Sample
    tokens: TokenWeights


class DiffSegmenterLabeller:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(
        self,
        experiment: Experiment,
        model: DiffusionModel,
        vocabulary: Vocabulary,
        captions: Captions | None,
    ) -> None:
        self.model, self.vocabulary, self.captions = model, vocabulary, captions
        self.config, self.seed = experiment.diffsegmenter, experiment.work.seed
        self.method = DiffSegmenter(model, experiment.diffsegmenter)
        # The timesteps of a pair go through the U-Net together, so their mean needs no memory of earlier batches.
        self.pairs = max(1, experiment.work.batch // len(experiment.diffsegmenter.timesteps))

    def __call__(self, samples: list[Sample]) -> Iterator[tuple[Sample, ScoreMaps | BadSample]]:
        """Every sample with its score maps, or with what is wrong with it, in their order."""
        faults: dict[str, BadSample] = {}
        pairs: list[Pair] = []
        for sample in samples:
            try:
                pairs += self._pairs(sample)
            except PromptError as error:
                faults[sample.key] = BadSample("prompt", str(error))
        maps = self._maps(pairs)
        for sample in samples:
            yield sample, faults[sample.key] if sample.key in faults else self._collect(sample, maps)

    def _collect(self, sample: Sample, maps: Iterator[torch.Tensor]) -> ScoreMaps:
        # Self-attention leaves narrow maps; stretched to [0, 1], they lose least to float16.
        rows = [min_max(next(maps)).half().numpy() for _ in sample.classes]
        stack = np.stack(rows) if rows else np.zeros((0, *self.model.latent_shape[1:]), np.float16)
        return ScoreMaps(sample.key, sample.classes, stack, (sample.image.height, sample.image.width))

    def _pairs(self, sample: Sample) -> list[Pair]:
        return [Pair(sample, self._tokens(sample.key, index)) for index in sample.classes]

    def _tokens(self, key: str, index: int) -> TokenWeights:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        return token_weights(self.model.tokenizer, prompt, self.config)

    def _maps(self, pairs: list[Pair]) -> Iterator[torch.Tensor]:
        """float32 (h, w) maps on the CPU, pair by pair; batches have one size, the last one filled up by repetition."""
        encodings = TextEncodings(self.model, [pair.tokens.text for pair in pairs])
        for batch in batched(zip(pairs, self._latents(pairs), strict=True), self.pairs):
            missing = self.pairs - len(batch) if len(pairs) > self.pairs else 0
            filled = [*batch, *[batch[-1]] * missing]
            maps = self.method(
                torch.stack([latent for _, latent in filled]),
                torch.stack([self._noise(pair.sample.key) for pair, _ in filled]),
                torch.stack([encodings.emphasised(pair.tokens.text, pair.tokens.emphasis) for pair, _ in filled]),
                torch.stack([pair.tokens.columns for pair, _ in filled]),
            )
            yield from maps[: len(batch)].cpu()

    def _latents(self, pairs: list[Pair]) -> Iterator[torch.Tensor]:
        """The latent of each pair's image; an image is encoded once however many classes it has."""
        samples = {pair.sample.key: pair.sample for pair in pairs}
        count = Counter(pair.sample.key for pair in pairs)
        for batch in batched(samples.values(), self.pairs):
            pixels = torch.stack([self.model.pixels(sample.image) for sample in batch])
            drawn = None
            if self.config.vae == "sample":
                drawn = torch.stack([self._draw(sample.key, "posterior", 1)[0] for sample in batch])
            for sample, latent in zip(batch, self.model.encode(pixels, drawn), strict=True):
                yield from [latent] * count[sample.key]

    def _noise(self, key: str) -> torch.Tensor:
        """Standard normal (T or 1, c, h, w) of one image."""
        return self._draw(key, "noise", len(self.config.timesteps) if self.config.noise == "per_timestep" else 1)

    def _draw(self, key: str, purpose: str, count: int) -> torch.Tensor:
        return draw_noise(self.seed, purpose, key, count, self.model.latent_shape)
