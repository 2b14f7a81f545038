"""The methods on images in memory: images and labels in, scores or labels out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, ClassVar, Generic, TypeVar, overload

import numpy as np
import torch

from pseudolabel.config import DiffSegConfig, DiffSegmenterConfig, ElboConfig, Experiment, FreeSegDiffConfig
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SampleError, SettingError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.shipped import NAMES
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import Context, Outcome, find_method
from pseudolabel.records import BACKGROUND, IGNORE, Sample, ScoreMaps
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.score_maps import at_image_size
from pseudolabel.stages.image_like import (
    MAX_PIXELS,
    ImageLike,
    ReadImage,
    View,
    is_one_image,
    predict,
    read_image,
    unused_key,
)
from pseudolabel.stages.method import chosen_method
from pseudolabel.stages.pretrained import find_device
from pseudolabel.text.captions import Captions
from pseudolabel.views.segmentation import Segmentation
from pseudolabel.vocabulary import Vocabulary, load_vocabulary, vocabulary_of

S = TypeVar("S")
Names = Sequence[str]
Caption = str | Mapping[str, str]
"""A sentence about the image, or one by class name."""

LOADERS = 4  # threads that decode images ahead of the model


class ImageMethod:
    """A registered method, ready for images in memory.

        method = ImageMethod("diffsegmenter", load_model("stable-diffusion-v1-5/stable-diffusion-v1-5"))
        for result in method(["dog.jpg", "cat.jpg"], labels=[["dog"], ["cat", "sofa"]]):
            result.scores

    Args:
        name: of the method in the registry; the package's own have classes, such as `DiffSegmenter`.
        model: the frozen diffusion model; None for a method that reads none.
        settings: the method's settings; None are its defaults, or those chosen for a model that ships.
        vocabulary: a vocabulary's name or file, or class names: labels are its indices, and in FreeSeg-Diff all its
            classes compete. None takes the labels of each call as the vocabulary, in their order.
        batch: rows per forward pass of the U-Net.
        seed: of the noise, together with the image's content.
        device: for a method without a diffusion model; None is the device that Accelerate gives this process.
        changes: single settings, such as `timesteps=[50]`.

    Raises:
        SettingError: if there is no such method or setting, a value is out of range, or the model is missing.
        VocabularyError: if there is no such vocabulary.
    """

    def __init__(
        self,
        name: str,
        model: DiffusionModel | None = None,
        settings: Any = None,
        *,
        vocabulary: str | Names | None = None,
        batch: int = 16,
        seed: int = 0,
        device: str | torch.device | None = None,
        **changes: Any,
    ) -> None:
        self.entry = find_method(name)
        if self.entry.needs_model and not isinstance(model, DiffusionModel):
            raise SettingError(
                f"method '{name}' needs a diffusion model, not a {type(model).__name__}; load one with "
                "pseudolabel.load_model(...)"
            )
        self.model = model if self.entry.needs_model else None
        self.settings = _settings(name, self.model, settings, changes)
        self.vocabulary: Vocabulary | None = None
        if vocabulary is not None:
            self.vocabulary = load_vocabulary(vocabulary) if isinstance(vocabulary, str) else vocabulary_of(vocabulary)
        self.device = self.model.device if self.model is not None else find_device(device)
        self.batch, self.seed = batch, seed
        self._latest: tuple[tuple[Vocabulary, Any] | None, CheckedPredictor] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entry.name!r}, {self.model or self.device}, {self.settings})"

    # A path is one image, although its type is also a sequence of paths.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, labels: Names | None = None, captions: Caption | None = None
    ) -> Segmentation: ...

    @overload
    def __call__(
        self,
        images: Iterable[ImageLike],
        labels: Names | Sequence[Names] | None = None,
        captions: Sequence[Caption] | None = None,
    ) -> Iterator[Segmentation]: ...

    def __call__(self, images: Any, labels: Any = None, captions: Any = None) -> Any:
        """Scores or labels of images, which are read and processed in batches when results are needed.

        Args:
            images: one image or several: PIL images, uint8 arrays, paths, URLs or bytes.
            labels: class names of the image; for several images a list of names for each of them, or one list whose
                names are in every image. As many names as images in one list are refused, since they could be one for
                each. Optional for methods with unnamed segments; DiffSeg then names them.
            captions: of each image, a sentence or, if the method reads those, sentences by class name.

        Returns:
            The result of the image, or an iterator over the results in the images' order; class activation maps are
            in `scores`, label maps in `labels`.

        Raises:
            SampleError: if an image cannot be read or labelled; the message says why.
            VocabularyError: if a label is not in the vocabulary.
            SettingError: if labels or captions do not fit the method or the number of images.
        """
        if is_one_image(images):
            return next(self._results([images], labels, None if captions is None else [captions]))
        return self._results(images if isinstance(images, Sequence) else list(images), labels, captions)

    def _results(self, images: Sequence[ImageLike], labels: Any, captions: Any) -> Iterator[Segmentation]:
        if labels is not None:
            _check_unambiguous(labels, len(images))
        names = None if labels is None else names_per_image(labels, len(images))
        settings = self.settings
        if names is not None and self.entry.name_segments is not None:
            settings = self.entry.name_segments(settings, True)
        if names is None and not self.entry.takes_unlabelled(settings):
            raise SettingError(f"method '{self.entry.name}' needs the labels of each image, such as [['dog'], ['cat']]")
        vocabulary = self.vocabulary or vocabulary_of_labels(names or [])
        classes = [tuple(sorted({*map(vocabulary.index, own)})) for own in names or [()] * len(images)]
        caption_texts: Captions | None = None if captions is None else {}
        predictor = self._predictor_of(vocabulary, settings, caption_texts)
        sentences = [None] * len(images) if captions is None else self._check_captions(captions, len(images))
        items = read_samples(images, classes, sentences, caption_texts, view=predictor.view)
        shown = None if self.entry.kind(settings) == "segments" else vocabulary
        return (result_of(found, shown) for found in predict(predictor, items))

    def _check_captions(self, captions: Sequence[Caption], count: int) -> Sequence[Caption]:
        wanted = {"class": (Mapping, "a mapping from class name to sentence"), "image": (str, "a sentence")}
        if self.entry.captions == "none":
            raise SettingError(f"method '{self.entry.name}' reads no captions")
        kind, text = wanted[self.entry.captions]
        if len(captions) != count or not all(isinstance(caption, kind) for caption in captions):
            raise SettingError(f"method '{self.entry.name}' reads {text} for each image; there are {count} images")
        return captions

    def _predictor_of(self, vocabulary: Vocabulary, settings: Any, captions: Captions | None) -> CheckedPredictor:
        """The method's predictor; the latest one is cached, unless there are captions."""
        key = (vocabulary, settings)
        if captions is not None or self._latest is None or self._latest[0] != key:
            context = Context(self.device, vocabulary, self.model, captions, self.batch, self.seed)
            # Build before the previous predictor is released, so that both share their models.
            self._latest = (None if captions is not None else key), CheckedPredictor(self.entry, context, settings)
        return self._latest[1]


class _PackageMethod(ImageMethod, Generic[S]):
    """A method of the package, with its settings as a dataclass or as keywords, as in `ImageMethod`."""

    name: ClassVar[str]

    def __init__(self, model: DiffusionModel, settings: S | None = None, **options: Any) -> None:
        super().__init__(self.name, model, settings, **options)


class DiffSegmenter(_PackageMethod[DiffSegmenterConfig]):
    """DiffSegmenter (Wang et al. 2023): class activation maps from cross-attention, completed by self-attention.

    `settings` is a `DiffSegmenterConfig`; `ImageMethod` documents the other arguments.
    """

    name = "diffsegmenter"


class Elbo(_PackageMethod[ElboConfig]):
    """The ELBO baseline (Wang et al. 2023, Eq. 3): scores by the prompt that denoises each pixel best.

    `settings` is an `ElboConfig`; `ImageMethod` documents the other arguments.
    """

    name = "elbo"


class DiffSeg(_PackageMethod[DiffSegConfig]):
    """DiffSeg (Tian et al. 2024): regions from self-attention, named by cross-attention if labels are given.

    `settings` is a `DiffSegConfig`; `ImageMethod` documents the other arguments.
    """

    name = "diffseg"


class FreeSegDiff(_PackageMethod[FreeSegDiffConfig]):
    """FreeSeg-Diff (Corradini et al. 2024): clusters of features, named by CLIP and refined by DenseCRF.

    `settings` is a `FreeSegDiffConfig`; `ImageMethod` documents the other arguments.
    """

    name = "freesegdiff"


def _check_unambiguous(labels: Names | Sequence[Names], count: int) -> None:
    """Make sure that a single list of names cannot be one name for each of several images.

    Raises:
        SettingError: if it can.
    """
    if count > 1 and len(labels) == count and not isinstance(labels, str) and all(isinstance(n, str) for n in labels):
        raise SettingError(
            f"{count} images and one list of {count} names, which could be one for each image; give a list for each, "
            f"such as [[{labels[0]!r}], [{labels[1]!r}]{', ...' * (count > 2)}], or, if all the names are in every "
            f"image, [names] * {count}"
        )


def names_per_image(labels: Names | Sequence[Names], count: int) -> list[Names]:
    """Class names of each of `count` images; a single list of names applies to every image.

    Raises:
        SettingError: if there are not as many lists as images.
    """
    if isinstance(labels, str):
        return [[labels]] * count
    if all(isinstance(name, str) for name in labels):
        return [list(labels)] * count  # type: ignore[arg-type]
    if len(labels) != count:
        raise SettingError(f"{count} images, but {len(labels)} lists of labels; give one list for each image")
    return [[own] if isinstance(own, str) else own for own in labels]


def vocabulary_of_labels(labels: Iterable[Names]) -> Vocabulary:
    """The vocabulary of all the names; `voc` where there are none."""
    names = list(dict.fromkeys(name for own in labels for name in own))
    return vocabulary_of(names) if names else load_vocabulary("voc")


def read_samples(
    images: Sequence[ImageLike],
    classes: Iterable[tuple[int, ...]],
    captions: Iterable[Caption | None] = repeat(None),
    caption_texts: Captions | None = None,
    max_pixels: int = MAX_PIXELS,
    view: View | None = None,
) -> Iterator[Sample | SampleError]:
    """Samples in the images' order, read in threads a few images ahead, and errors for those that cannot be read.

    Args:
        images: in any of the forms.
        classes: sorted vocabulary indices of each image.
        captions: of each image.
        caption_texts: filled with each sample's captions by key and name before the sample is yielded.
        max_pixels: largest width * height that is decoded.
        view: takes from a decoded image what the predictor needs; of a file, only the bytes are kept.
    """

    def read(numbered: tuple[int, ImageLike]) -> ReadImage | SampleError:
        number, image = numbered
        try:
            return read_image(image, f"image {number}" if len(images) > 1 else "the image", max_pixels, view)
        except SampleError as error:
            return error

    used: set[str] = set()
    read_ahead = prefetch(read, enumerate(images, 1), LOADERS, LOADERS)
    for image, own, caption in zip(read_ahead, classes, captions, strict=False):
        if isinstance(image, SampleError):
            yield image
            continue
        key = unused_key(image.digest, used)
        if caption is not None and caption_texts is not None:
            by_name = {"": caption} if isinstance(caption, str) else caption
            caption_texts.update({(key, name): text for name, text in by_name.items()})
        yield Sample(key, image.content, own, image.view)


def result_of(found: tuple[Sample, Outcome] | SampleError, vocabulary: Vocabulary | None) -> Segmentation:
    """The result of a predictor for an image; without a vocabulary, regions are named by number.

    Raises:
        SampleError: if the image failed.
    """
    if isinstance(found, SampleError):
        raise found
    sample, outcome = found
    if isinstance(outcome, SampleError):
        raise outcome
    if isinstance(outcome, ScoreMaps):
        assert vocabulary is not None
        names = {index: vocabulary.names[index] for index in outcome.classes}
        scores = at_image_size(outcome.maps, outcome.size, outcome.final)
        return Segmentation(sample.image, None, names, scores, classes=tuple(names.values()))
    labels = [int(label) for label in np.unique(outcome.labels) if label not in (BACKGROUND, IGNORE)]
    names = {label: f"region {label}" if vocabulary is None else vocabulary.names[label] for label in labels}
    return Segmentation(sample.image, outcome.labels, names, confidence=outcome.confidence)


def _settings(name: str, model: DiffusionModel | None, settings: Any, changes: Mapping[str, Any]) -> Any:
    """The settings with changes, validated like those of an experiment.

    Raises:
        SettingError: if there is no such setting, or a value is out of range.
    """
    base = open_experiment(model.name) if model is not None and model.name in NAMES else Experiment()
    if settings is not None:
        wanted = find_method(name).settings
        if not isinstance(settings, wanted):
            raise SettingError(f"method '{name}' takes a {wanted.__name__}, not a {type(settings).__name__}")
        base = replace(base, own_settings={name: settings})
    experiment = open_experiment(replace(base, method=name), {f"{name}.{key}": value for key, value in changes.items()})
    return chosen_method(experiment)[1]
