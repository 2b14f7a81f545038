"""The ELBO baseline on samples: prompts, latents and many draws of noise in, class activation maps out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.methods.elbo import Elbo
from pseudolabel.methods.score_maps import min_max
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.stages.labellers.noise import draw_noise
from pseudolabel.text.captions import Captions
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt
from pseudolabel.vocabulary import Vocabulary

BACKGROUND_PROMPT = ""


@dataclass(frozen=True)
class Draw:
    """One row of a U-Net batch: an image's latent and noise, (c, h, w) each, at a timestep, and one of its prompts."""

    latent: torch.Tensor
    noise: torch.Tensor
    timestep: int
    prompt: str


class ElboLabeller:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(
        self,
        experiment: Experiment,
        model: DiffusionModel,
        vocabulary: Vocabulary,
        captions: Captions | None,
    ) -> None:
        self.model, self.vocabulary, self.captions = model, vocabulary, captions
        self.samples, self.batch, self.seed = experiment.elbo.samples, experiment.work.batch, experiment.work.seed
        self.method = Elbo(model, experiment.elbo)

    def __call__(self, samples: list[Sample]) -> Iterator[tuple[Sample, ScoreMaps]]:
        """Every sample with its score maps, in their order."""
        prompts = [self.prompts(sample) for sample in samples]
        terms = self._terms([(sample, texts) for sample, texts in zip(samples, prompts, strict=True) if sample.classes])
        for sample, texts in zip(samples, prompts, strict=True):
            yield sample, self._collect(sample, len(texts), terms)

    def prompts(self, sample: Sample) -> list[str]:
        """The empty prompt and one for each of the sample's classes."""
        return [BACKGROUND_PROMPT, *(self._prompt(sample.key, index) for index in sample.classes)]

    def _prompt(self, key: str, index: int) -> str:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        return build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption).text

    def _collect(self, sample: Sample, prompts: int, terms: Iterator[torch.Tensor]) -> ScoreMaps:
        maps = torch.zeros(0, *self.model.latent_shape[1:])
        if sample.classes:
            total = torch.zeros(())
            for _ in range(self.samples):
                total = torch.stack([next(terms) for _ in range(prompts)]) + total
            # Consumers scale maps to [0, 1] at image size; stretched before, they lose least to float16.
            maps = min_max(self.method.scores(total / self.samples)).cpu()
        return ScoreMaps(sample.key, sample.classes, maps.half().numpy(), (sample.image.height, sample.image.width))

    def _terms(self, work: list[tuple[Sample, list[str]]]) -> Iterator[torch.Tensor]:
        """(h, w) terms of Eq. 3, draw by draw; batches have one size, the last one filled up by repetition."""
        encodings = TextEncodings(self.model, [text for _, texts in work for text in texts])
        for number, batch in enumerate(batched(self._draws(work), self.batch)):
            filled = [*batch, *[batch[-1]] * (self.batch - len(batch) if number else 0)]
            terms = self.method.log_likelihood(
                torch.stack([draw.latent for draw in filled]),
                torch.stack([draw.noise for draw in filled]),
                torch.tensor([draw.timestep for draw in filled]),
                torch.stack([encodings.plain(draw.prompt) for draw in filled]),
            )
            yield from terms[: len(batch)]

    def _draws(self, work: list[tuple[Sample, list[str]]]) -> Iterator[Draw]:
        """All prompts of an image for its first draw of noise, then for its second, and so on; images one by one."""
        for group in batched(work, self.batch):
            latents = self.model.encode(torch.stack([self.model.pixels(sample.image) for sample, _ in group]))
            for (sample, texts), latent in zip(group, latents, strict=True):
                drawn = draw_noise(self.seed, "noise", sample.key, self.samples, self.model.latent_shape)
                for number, noise in enumerate(drawn):
                    yield from (Draw(latent, noise, self.method.timestep(number), text) for text in texts)
