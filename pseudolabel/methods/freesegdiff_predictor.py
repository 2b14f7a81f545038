"""FreeSeg-Diff on samples: latents in, clusters of features named by CLIP out, as label maps."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from pseudolabel.config import FreeSegDiffConfig
from pseudolabel.crf.engines import crf_settings, resolve_engine
from pseudolabel.crf.failures import STATUS as CRF_STATUS
from pseudolabel.crf.regions import NamedRegions, try_regions
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
from pseudolabel.runtime.batching import batched
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
            raise SettingError(f"freesegdiff.certainty {self.config.certainty}: give a probability between 0 and 1")
        if problem := template_problem(self.config.template):
            raise SettingError(f"`freesegdiff.template` {problem}")
        self.engine = resolve_engine(self.config.crf, model.device).engine
        self.method = FeatureClusters(model, self.config)
        self.backbone = PatchFeatures(self.config.backbone, model.device) if self.config.backbone else None
        self.clip = ClipScorer(self.config.clip, model.device, "`freesegdiff.clip`")
        words = [vocabulary.prompt(index) for index in range(1, len(vocabulary) + 1)]
        if self.config.background_words:
            words += vocabulary.background_words
        self.texts = [self.config.template.format(word) for word in words]

    def settings(self) -> dict[str, Any]:
        """All that the label maps depend on beside the diffusion model and the labels."""
        return {
            **asdict(self.config),
            "background_words": self.vocabulary.background_words if self.config.background_words else [],
            "clip": self.clip.fingerprint(),
            "backbone": self.backbone.fingerprint() if self.backbone is not None else "",
            "crf": crf_settings(self.config.crf),
        }

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, LabelMap | SampleError]]:
        """Every sample with its labels, or with what is wrong with it, in their order.

        One without candidate classes is all background.
        """
        samples = list(samples)
        labels = self._labels([sample for sample in samples if sample.classes])
        for sample in samples:
            background = np.full((sample.image.height, sample.image.width), BACKGROUND, np.uint8)
            found = next(labels) if sample.classes else background
            yield sample, SampleError(CRF_STATUS, found) if isinstance(found, str) else LabelMap(sample.key, found)

    def _labels(self, samples: list[Sample]) -> Iterator[np.ndarray | str]:
        """uint8 (H, W) labels of every sample, or why DenseCRF failed; on cores it runs while the device goes on."""
        named = (self._name(sample, own) for sample, own in zip(samples, self._clusters(samples), strict=True))
        if self.config.refinement == "none" or self.engine == "torch" or self.context.workers == 1 or len(samples) < 2:
            return (try_regions(one, self.model.device) for one in named)
        return self._pool.map(try_regions, named)

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        return open_pool(self.context.workers, try_regions.__module__)

    def _clusters(self, samples: list[Sample]) -> Iterator[np.ndarray]:
        """uint8 (side, side) cluster numbers of every sample."""
        for regions in self._regions(samples) if self.backbone is None else self._patches(samples, self.backbone):
            yield from regions.to("cpu", torch.uint8).numpy()

    def _regions(self, samples: list[Sample]) -> Iterator[torch.Tensor]:
        """Batches of cluster numbers of the diffusion model's features."""
        draw = self._draw_posterior if self.config.vae == "sample" else None
        for group, latents in encode_ahead(self.model, samples, _image, self.context.batch, self.context.loaders, draw):
            noise = torch.cat([self._draw(sample.key, "noise") for sample in group]) if self.config.noise else None
            yield self.method.regions(latents, noise, self._generators(group))

    def _patches(self, samples: list[Sample], backbone: PatchFeatures) -> Iterator[torch.Tensor]:
        """Batches of cluster numbers of another model's features."""
        for group in batched(samples, self.context.batch):
            yield cluster([backbone([sample.image for sample in group])], self._generators(group), self.config)

    def _generators(self, group: Sequence[Sample]) -> list[torch.Generator]:
        return [generator_of(self.context.seed, "clusters", sample.key) for sample in group]

    def _draw_posterior(self, sample: Sample) -> torch.Tensor:
        return self._draw(sample.key, "posterior")[0]

    def _draw(self, key: str, purpose: str) -> torch.Tensor:
        return draw_noise(self.context.seed, purpose, key, 1, self.model.latent_shape)

    def _name(self, sample: Sample, clusters: np.ndarray) -> NamedRegions:
        """Clusters at the image's size, each with a class's label or background's."""
        image = np.asarray(sample.image)
        regions = enlarge_clusters(clusters, image.shape[:2], self.config)
        pictures = [Image.fromarray(picture) for picture in cut_out(image, regions)]
        similarities = self.clip.similarities(pictures, self.texts)
        if self.config.naming == "released":
            names = share_regions(similarities, self.clip.scale, sample.classes)
        else:
            names = name_regions(similarities, len(self.vocabulary), sample.classes)
        return NamedRegions(image, regions, names, self.config)


def _image(sample: Sample) -> Image.Image:
    return sample.image
