"""FreeSeg-Diff on samples: latents in, clusters of features named by CLIP out, as label maps."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from pseudolabel.config import FreeSegDiffConfig
from pseudolabel.crf.engines import crf_settings, resolve_engine
from pseudolabel.crf.regions import NamedRegions, Refined, try_regions
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise, generator_of
from pseudolabel.errors import SampleError, SettingError
from pseudolabel.methods.backbone import PatchFeatures
from pseudolabel.methods.freesegdiff import (
    FeatureClusters,
    cluster,
    cut_out,
    enlarge_clusters,
    name_regions,
    share_regions,
)
from pseudolabel.methods.registry import Context
from pseudolabel.records import BACKGROUND, LabelMap, Sample
from pseudolabel.runtime.batching import batched, bypass
from pseudolabel.runtime.halving import Halving
from pseudolabel.runtime.prefetch import map_ahead
from pseudolabel.runtime.workers import open_pool
from pseudolabel.text.clip import ClipScorer
from pseudolabel.vocabulary import template_problem


class FreeSegDiffPredictor:
    """Label maps of samples, in batches that never mix two calls."""

    def __init__(self, context: Context, config: FreeSegDiffConfig) -> None:
        self.config, self.model, self.vocabulary = config, context.diffusion, context.vocabulary
        self.context = context
        model, vocabulary = self.model, self.vocabulary
        if not 0 < self.config.certainty < 1:
            raise SettingError(f"`freesegdiff.certainty` {self.config.certainty}: give a probability between 0 and 1")
        if problem := template_problem(self.config.template):
            raise SettingError(f"`freesegdiff.template` {problem}")
        self.engine = resolve_engine(self.config.crf, model.device).engine
        self.method, self.in_parts = FeatureClusters(model, self.config), Halving()
        self.backbone = PatchFeatures(self.config.backbone, model.device, model.hub) if self.config.backbone else None
        self.clip = ClipScorer(self.config.clip, model.device, "`freesegdiff.clip`", model.hub)
        words = [vocabulary.prompt(index) for index in range(1, len(vocabulary) + 1)]
        if self.config.background_words:
            words += vocabulary.background_words
        self.texts = [self.config.template.format(word) for word in words]

    def settings(self) -> dict[str, Any]:
        """Everything that the label maps depend on besides the diffusion model and the labels."""
        return {
            **asdict(self.config),
            "background_words": self.vocabulary.background_words if self.config.background_words else [],
            "clip": self.clip.fingerprint(),
            "backbone": self.backbone.fingerprint() if self.backbone is not None else "",
            "crf": crf_settings(self.config.crf),
        }

    def view(self, image: Image.Image) -> Any:
        """The image stretched to the square of the model whose features are clustered."""
        return self.model.square(image) if self.backbone is None else self.backbone.pixels(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, LabelMap | SampleError]]:
        """Every sample with its labels, or with its failure, in order.

        An image without candidate classes is all background.
        """
        for sample, found in bypass(samples, lambda sample: bool(sample.classes), self._labels, _background):
            yield sample, found if isinstance(found, SampleError) else LabelMap(sample.key, *found)

    def _labels(self, samples: Iterator[Sample]) -> Iterator[Refined | SampleError]:
        """Labels and confidence of each sample, or DenseCRF's failure; on cores it runs while the device goes on."""
        first = list(islice(samples, 2))
        named = (self._name(sample, own) for sample, own in self._clusters(chain(first, samples)))
        is_here = self.config.refinement == "none" or self.engine == "torch"
        if is_here or self.context.workers == 1 or len(first) < 2:
            return (try_regions(one, self.model.device) for one in named)
        return map_ahead(self._pool, try_regions, named, self.context.workers)

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        return open_pool(self.context.workers)

    def _clusters(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, np.ndarray]]:
        """Every sample with its cluster numbers, uint8 (side, side)."""
        batches = self._regions(samples) if self.backbone is None else self._patches(samples, self.backbone)
        for group, regions in batches:
            yield from zip(group, regions.to("cpu", torch.uint8).numpy(), strict=True)

    def _regions(self, samples: Iterable[Sample]) -> Iterator[tuple[Sequence[Sample], torch.Tensor]]:
        """Batches of samples with cluster numbers from the diffusion model's features."""
        draw = self._draw_posterior if self.config.vae == "sample" else None
        for group, latents in encode_ahead(
            self.model, samples, self._view, self.context.batch, self.context.loaders, draw
        ):
            noise = torch.cat([self._draw(sample.key, "noise") for sample in group]) if self.config.noise else None
            yield group, torch.cat(self.in_parts(self.method.regions, latents, noise, self._generators(group)))

    def _patches(
        self, samples: Iterable[Sample], backbone: PatchFeatures
    ) -> Iterator[tuple[Sequence[Sample], torch.Tensor]]:
        """Batches of samples with cluster numbers from another model's features."""
        for group in batched(samples, self.context.batch):
            features = backbone(torch.stack([self._view(sample) for sample in group]))
            yield group, cluster([features], self._generators(group), self.config)

    def _generators(self, group: Sequence[Sample]) -> list[torch.Generator]:
        return [generator_of(self.context.seed, "clusters", sample.key) for sample in group]

    def _draw_posterior(self, sample: Sample) -> torch.Tensor:
        return self._draw(sample.key, "posterior")[0]

    def _draw(self, key: str, purpose: str) -> torch.Tensor:
        return draw_noise(self.context.seed, purpose, key, 1, self.model.latent_shape)

    def _name(self, sample: Sample, clusters: np.ndarray) -> NamedRegions:
        """Clusters at the image's size, each with the label of a class or of background."""
        image = np.asarray(sample.image)
        regions = enlarge_clusters(clusters, image.shape[:2], self.config)
        masked = [Image.fromarray(one) for one in cut_out(image, regions)]
        similarities = self.clip.similarities(masked, self.texts)
        if self.config.naming == "released":
            names = share_regions(similarities, self.clip.scale, sample.classes)
        else:
            names = name_regions(similarities, len(self.vocabulary), sample.classes)
        return NamedRegions(image, regions, names, self.config)

    def _view(self, sample: Sample) -> Any:
        return sample.viewed(self.view)


def _background(sample: Sample) -> Refined:
    return np.full(sample.size, BACKGROUND, np.uint8), np.ones(sample.size, np.float32)
