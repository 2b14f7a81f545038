"""Segmentation of images from Python, with any method, and with given or guessed classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, overload

import torch

from pseudolabel.config import Experiment
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import SampleError, VocabularyError
from pseudolabel.experiment_file import open_experiment, resolve_shipped
from pseudolabel.io.hub import Hub
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample
from pseudolabel.runtime.batching import batched
from pseudolabel.score_maps import label_map
from pseudolabel.stages.image_like import ImageLike, View, is_one_image, predict
from pseudolabel.stages.image_method import Names, names_per_image, read_samples, result_of, vocabulary_of_labels
from pseudolabel.stages.method import chosen_method
from pseudolabel.stages.pretrained import find_device, model_settings
from pseudolabel.stages.refine_image import decide, names_found
from pseudolabel.text.category_filter import CategoryFilter
from pseudolabel.views.segmentation import Segmentation
from pseudolabel.vocabulary import Vocabulary, load_vocabulary, typed_names, vocabulary_of

GUESS_BATCH = 16  # images whose classes are guessed in one batch, with one vocabulary
IMAGE_WORDS = frozenset({"photo", "photograph", "photography", "picture", "image", "view", "close-up", "background"})


class Segmenter:
    """Segments images by one method; classes are given, or guessed from the image.

        segment = Segmenter.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", method="diffsegmenter")
        result = segment("photo.jpg", ["dog", "red car"])
        result.mask.save("photo.png")

    Args:
        experiment: the model, the method and all settings; its source and output folder are not used.
        sharpen: refine class activation maps with DenseCRF (`experiment.crf`). Otherwise a pixel is background if no
            class scores above `experiment.evaluate.threshold`.
        device: such as `cuda`; None is the device that Accelerate gives this process.
        hub: access to the Hugging Face hub; None is the default.
    """

    def __init__(
        self,
        experiment: Experiment,
        sharpen: bool = False,
        *,
        device: str | torch.device | None = None,
        hub: Hub | None = None,
    ) -> None:
        self.experiment, self.sharpen = experiment, sharpen
        self._method, self._settings = chosen_method(experiment)
        self._device, hub = find_device(device), hub or Hub()
        self._model = load_model(experiment.model, self._device, hub) if self._method.needs_model else None
        self._filter = CategoryFilter(experiment.filter, experiment.captions, self._device, hub)
        self._latest: tuple[tuple[Vocabulary, bool], CheckedPredictor] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        method: str = "diffsegmenter",
        sharpen: bool = False,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        variant: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Segmenter":
        """Load a model from the hub or a folder, with the method's defaults, or for `shapes` the settings tuned for it.

        The other arguments are those of `load_model`; `token` and `local_files_only` also apply to the CLIP and the
        captioner that guess classes.

        Args:
            name: hub id, folder, or single safetensors file.
            method: a registered method.
            sharpen: as for `Segmenter`.

        Raises:
            ModelError: if it cannot be loaded.
            SettingError: if there is no such method, or a value is out of range.
        """
        is_shipped = resolve_shipped("config", name) != name
        base = open_experiment(name) if is_shipped else Experiment()
        settings = model_settings(name, dtype, revision, variant)
        experiment = open_experiment(replace(base, method=method), settings)
        return cls(experiment, sharpen, device=device, hub=Hub(token, local_files_only))

    def __repr__(self) -> str:
        sharpened = ", sharpened by DenseCRF" if self.sharpen else ""
        return f"Segmenter({self.experiment.method!r}, {self._model or self._device}{sharpened})"

    # A path is one image, although its type is also a sequence of paths.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, classes: Names | str | None = None
    ) -> Segmentation: ...

    @overload
    def __call__(
        self, images: Iterable[ImageLike], classes: Sequence[Names] | Names | str | None = None
    ) -> Iterator[Segmentation]: ...

    def __call__(self, images: Any, classes: Any = None) -> Any:
        """Segment one image, or several in batches.

        Args:
            images: one image or several: PIL images, uint8 (H, W), (H, W, 3) or (H, W, 4), paths, URLs or bytes; EXIF
                orientation is applied, transparency becomes white.
            classes: class names, which are looked for in every image, or a list of them for each image; or a
                vocabulary's name or file, such as `voc`, from which the category filter chooses; or `auto`, the nouns
                of a caption. None is `auto`, but with DiffSeg it gives regions without names.

        Returns:
            The result of the image, or an iterator over the results in the images' order; class activation maps are in
            `scores`.

        Raises:
            SampleError: if an image cannot be read or segmented; the message says why.
            VocabularyError: if there is no such vocabulary, or no class is given.
            SettingError: if there are not as many lists of classes as images.
        """
        if is_one_image(images):
            given = classes if classes is None or isinstance(classes, str) else [classes]
            return next(_raised(self._outcomes([images], given)))
        return _raised(self._outcomes(images if isinstance(images, Sequence) else list(images), classes))

    def segment(
        self, images: Mapping[str, ImageLike], classes: Names | str | None = None
    ) -> Iterator[tuple[str, Segmentation | SampleError]]:
        """Segment images by name, in batches; yields the name, and the result or the error."""
        yield from zip(images, self._outcomes(list(images.values()), classes), strict=True)

    def _outcomes(self, images: Sequence[ImageLike], classes: Any) -> Iterator[Segmentation | SampleError]:
        max_pixels = self.experiment.source.max_pixels
        names = _given_names(classes, len(images))
        if classes is None and self._method.name_segments is not None:
            view = self._view(None)
            yield from self._predict(read_samples(images, repeat(()), max_pixels=max_pixels, view=view), None)
        elif names is not None:
            vocabulary = vocabulary_of_labels(names)
            found = [tuple(sorted({*map(vocabulary.index, own)})) for own in names]
            view = self._view(vocabulary)
            yield from self._predict(read_samples(images, found, max_pixels=max_pixels, view=view), vocabulary)
        else:
            for batch in batched(images, GUESS_BATCH):
                read = read_samples(batch, repeat(()), max_pixels=max_pixels)
                yield from self._guess_and_predict(list(read), classes)

    def _guess_and_predict(
        self, items: Sequence[Sample | SampleError], classes: str | None
    ) -> Iterator[Segmentation | SampleError]:
        samples = [item for item in items if isinstance(item, Sample)]
        images = [sample.image for sample in samples]
        if classes is None or classes == "auto":
            vocabulary, found = self._nouns(images) if images else (load_vocabulary("voc"), [])
        else:
            vocabulary = load_vocabulary(classes)
            found = [guess.classes for guess in self._filter(images, vocabulary)] if images else []
        labelled = iter([replace(sample, classes=own) for sample, own in zip(samples, found, strict=True)])
        yield from self._predict([next(labelled) if isinstance(item, Sample) else item for item in items], vocabulary)

    def _nouns(self, images: Sequence[Any]) -> tuple[Vocabulary, list[tuple[int, ...]]]:
        """A vocabulary of the nouns of all captions, and each image's nouns as indices."""
        nouns = [[noun for noun in found if noun not in IMAGE_WORDS] for found in self._filter.nouns(images)]
        names = sorted({name for found in nouns for name in found})
        if not names:
            return load_vocabulary("voc"), [()] * len(images)
        vocabulary = vocabulary_of(names)
        return vocabulary, [tuple(sorted(map(vocabulary.index, found))) for found in nouns]

    def _predict(
        self, items: Iterable[Sample | SampleError], vocabulary: Vocabulary | None
    ) -> Iterator[Segmentation | SampleError]:
        """Results in the items' order; without a vocabulary, of regions without names."""
        for found in predict(self._predictor_of(vocabulary), items):
            try:
                yield self._decide(result_of(found, vocabulary))
            except SampleError as error:
                yield error

    def _predictor_of(self, vocabulary: Vocabulary | None) -> CheckedPredictor:
        """The method's predictor; only the latest is cached, as each batch of guesses has its own vocabulary."""
        key = (vocabulary or load_vocabulary("voc"), vocabulary is not None)
        if self._latest is None or self._latest[0] != key:
            settings, work = self._settings, self.experiment.work
            if self._method.name_segments is not None:
                settings = self._method.name_segments(settings, vocabulary is not None)
            # No worker processes by default: they would run a script without a main guard again.
            workers = work.workers or 1
            context = Context(self._device, key[0], self._model, None, work.batch, work.seed, work.loaders, workers)
            # Build before the previous predictor is released, so that both share their models.
            self._latest = key, CheckedPredictor(self._method, context, settings)
        return self._latest[1]

    def _view(self, vocabulary: Vocabulary | None) -> View | None:
        return self._predictor_of(vocabulary).view

    def _decide(self, result: Segmentation) -> Segmentation:
        """The result, with labels from the scores if it has none."""
        if result.labels is not None or result.scores is None:
            return result
        if self.sharpen:
            crf = replace(self.experiment.crf, ignore_below=0.0)  # every pixel gets a label
            return decide(result, crf, self._device)
        labels = label_map(result.scores, tuple(result.names), self.experiment.evaluate.threshold)
        return replace(result, labels=labels, names=names_found(labels, result.names))


def _given_names(classes: Any, count: int) -> list[Names] | None:
    """The class names of each image; None if they are to be guessed."""
    names = None if classes is None or classes == "auto" else classes
    if isinstance(names, str):
        names = typed_names(names)
    if names is None:
        return None
    if not len(names) or any(not isinstance(own, str) and not len(own) for own in names):
        raise VocabularyError("no class is given; give class names, or auto")
    return names_per_image(names, count)


def _raised(outcomes: Iterable[Segmentation | SampleError]) -> Iterator[Segmentation]:
    for outcome in outcomes:
        if isinstance(outcome, SampleError):
            raise outcome
        yield outcome
