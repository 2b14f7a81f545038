"""DiffSeg on samples: images in, segments out, which Semantic DiffSeg names with the samples' classes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from pseudolabel.config import DiffSegConfig
from pseudolabel.diffusion.latents import encode_ahead
from pseudolabel.diffusion.noise import draw_noise, generator_of
from pseudolabel.errors import SampleError
from pseudolabel.methods.diffseg import AggregatedAttention, merge, name_segments, suppress
from pseudolabel.methods.kmeans import kmeans
from pseudolabel.methods.ncut import CutFeatures
from pseudolabel.methods.registry import Context
from pseudolabel.records import BACKGROUND, IGNORE, LabelMap, Sample
from pseudolabel.runtime.halving import Halving
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.joint_prompt import build_joint_prompt, class_token_weights
from pseudolabel.vocabulary import MAX_CLASSES

RESTARTS = 10  # of K-means, as scikit-learn's were when the baselines were published


@dataclass(frozen=True)
class Prompted:
    """A sample with its latent, the sentence that names its C classes, and their token weights (C, tokens)."""

    sample: Sample
    latent: torch.Tensor
    text: str
    weights: torch.Tensor


class DiffSegPredictor:
    """Segments of samples, or masks of their classes, in batches that never mix two calls."""

    def __init__(self, context: Context, config: DiffSegConfig) -> None:
        self.model, self.vocabulary = context.diffusion, context.vocabulary
        self.captions = {} if context.captions is None else context.captions
        self.config, self.context = config, context
        self.method, self.in_parts = AggregatedAttention(self.model, config), Halving()
        self.cut = CutFeatures(self.model, config) if config.grouping == "ncut" else None

    def settings(self) -> dict[str, Any]:
        """Everything that the label maps depend on besides the diffusion model and the labels."""
        settings = asdict(self.config)
        if self.config.semantic:
            settings["template"] = self.vocabulary.template
            if self.captions:  # in which a synonym counts as its class
                settings["synonyms"] = [entry.synonyms for entry in self.vocabulary.classes]
        return settings

    def view(self, image: Image.Image) -> Image.Image:
        """The part of the image that the model sees, stretched to its square."""
        return self.model.square(image.crop(self._box(image.height, image.width)))

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, LabelMap | SampleError]]:
        """Every sample with its label map, or with its failure, in order.

        Segments have the values 1, 2, ... in the order of their anchors. With `semantic`, they get the sample's
        classes; as in the paper, only images without classes have background.
        """
        label = self._name if self.config.semantic else self._number
        for batch, latents in encode_ahead(self.model, samples, self._view, self.context.batch, self.context.loaders):
            results = dict(label(batch, latents))
            for sample in batch:
                result = results[sample.key]
                yield sample, result if isinstance(result, SampleError) else self._place(sample, result)

    def _number(self, batch: Sequence[Sample], latents: torch.Tensor) -> Iterator[tuple[str, np.ndarray | SampleError]]:
        for sample, labels in self._segment(batch, latents):
            if isinstance(labels, SampleError):
                yield sample.key, labels
                continue
            count = int(labels.max()) + 1
            if count > MAX_CLASSES:
                fix = (
                    "lower `diffseg.cut_threshold`" if self.cut else "raise `diffseg.threshold` or `diffseg.iterations`"
                )
                yield sample.key, SampleError("segments", f"{count} segments, a mask holds {MAX_CLASSES}; {fix}")
            else:
                yield sample.key, labels.cpu().numpy() + 1

    def _name(self, batch: Sequence[Sample], latents: torch.Tensor) -> Iterator[tuple[str, np.ndarray | SampleError]]:
        prompted: list[Prompted] = []
        for sample, latent in zip(batch, latents, strict=True):
            try:
                prompted += [self._prompt(sample, latent)] if sample.classes else []
            except SampleError as error:
                yield sample.key, error
            if not sample.classes:
                yield sample.key, np.full(self._size(sample), BACKGROUND)
        if prompted:
            own = torch.stack([one.latent for one in prompted])
            text_maps = self._text_maps(prompted, own)
            segments = self._segment([one.sample for one in prompted], own)
            for number, (sample, labels) in enumerate(segments):
                if isinstance(labels, SampleError):
                    yield sample.key, labels
                    continue
                classes = torch.tensor(sample.classes, device=labels.device)
                named = name_segments(labels, [level[number, : len(classes)] for level in text_maps])
                yield sample.key, classes[named][labels].cpu().numpy()

    def _segment(
        self, batch: Sequence[Sample], latents: torch.Tensor
    ) -> Iterator[tuple[Sample, torch.Tensor | SampleError]]:
        """Segments int64 (h, w) of the part of each image that the model saw, numbered 0, 1, ... without gaps."""
        parts = self.in_parts(lambda *part: list(self._proposals(*part)), batch, latents)
        for sample, proposals in zip(batch, chain.from_iterable(parts), strict=True):
            if isinstance(proposals, SampleError):
                yield sample, proposals
            else:
                yield sample, suppress(proposals, self._size(sample)).unique(return_inverse=True)[1]

    def _proposals(self, batch: Sequence[Sample], latents: torch.Tensor) -> Iterator[torch.Tensor | SampleError]:
        """Maps (P, n, n) for each image; each pixel goes to the largest."""
        if self.cut is not None:
            seed, shape = self.context.seed, self.model.latent_shape
            noise = torch.cat([draw_noise(seed, "noise", sample.key, 1, shape) for sample in batch])
            yield from self.cut(latents, noise)
            return
        samples = iter(batch)
        for maps in self.method(latents):
            group = list(islice(samples, len(maps)))
            if self.config.grouping == "merge":
                yield from merge(maps, self.config)
            else:
                yield from (self._clusters(own, sample) for own, sample in zip(maps, group, strict=True))

    def _clusters(self, maps: torch.Tensor, sample: Sample) -> torch.Tensor:
        """K-means of the rows of an image's aggregated attention: 1 in a cluster, 0 outside."""
        count = self.config.clusters or max(1, len(sample.classes) + self.vocabulary.has_background)
        generator = generator_of(self.context.seed, "kmeans", sample.key)
        labels = kmeans(maps[None], count, [generator], RESTARTS)[0]
        return F.one_hot(labels, count).mT.float().unflatten(-1, (self.method.side, self.method.side))

    def _prompt(self, sample: Sample, latent: torch.Tensor) -> Prompted:
        entries = [self.vocabulary.classes[index - 1] for index in sample.classes]
        prompt = build_joint_prompt(self.vocabulary.template, entries, self.captions.get((sample.key, ""), ""))
        return Prompted(sample, latent, prompt.text, class_token_weights(self.model.tokenizer, prompt))

    def _text_maps(self, prompted: Sequence[Prompted], latents: torch.Tensor) -> list[torch.Tensor]:
        """Maps (B, C, side, side) by resolution; C is the largest number of classes, and surplus maps are 0."""
        encodings = TextEncodings(self.model, [one.text for one in prompted])
        embeddings = torch.stack([encodings.plain(one.text) for one in prompted])
        weights = pad_sequence([one.weights for one in prompted], batch_first=True)
        parts = self.in_parts(self.method.text_maps, latents, embeddings, weights)
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _view(self, sample: Sample) -> Image.Image:
        return sample.viewed(self.view)

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The part of an image that the model sees, in Pillow's order: left, top, right, bottom."""
        if self.config.fit == "stretch":
            return 0, 0, width, height
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def _size(self, sample: Sample) -> tuple[int, int]:
        """(height, width) of the part that the model sees."""
        left, top, right, bottom = self._box(*sample.size)
        return bottom - top, right - left

    def _place(self, sample: Sample, labels: np.ndarray) -> LabelMap:
        """Labels at their place in the image, 255 around them."""
        left, top, right, bottom = self._box(*sample.size)
        full = np.full(sample.size, IGNORE, np.uint8)
        full[top:bottom, left:right] = labels
        return LabelMap(sample.key, full)
