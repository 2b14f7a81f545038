"""Segmenting images one by one from Python, with any of the methods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.config import Experiment, ModelConfig
from pseudolabel.crf.densecrf import refine
from pseudolabel.crf.failures import crf_failures
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import SampleError, VocabularyError
from pseudolabel.experiment_file import load_experiment, resolve_shipped
from pseudolabel.io.files import Location, read_bytes
from pseudolabel.io.images import decode_image, upright_rgb
from pseudolabel.io.names import printable
from pseudolabel.methods.registry import Context, Predictor, chosen_method
from pseudolabel.records import BACKGROUND, IGNORE, LabelMap, Sample, ScoreMaps
from pseudolabel.runtime.rank import current_rank
from pseudolabel.score_maps import at_image_size, label_map
from pseudolabel.text.category_filter import CategoryFilter
from pseudolabel.views.segmentation import Segmentation
from pseudolabel.vocabulary import Vocabulary, load_vocabulary, typed_names, vocabulary_of

ImageLike = Image.Image | np.ndarray | str | Path | bytes
"""An image, or an image file's path (or fsspec URL) or bytes."""

NOISE_KEY = "image"  # noise is drawn by key: an image gets the same mask under whatever name it comes
PICTURE_WORDS = frozenset({"photo", "photograph", "photography", "picture", "image", "view", "close-up", "background"})


class Segmenter:
    """A diffusion model that segments images by one method.

        segment = Segmenter.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", method="diffsegmenter")
        result = segment(Image.open("photo.jpg"), ["dog", "red car"])
        result.mask.save("photo.png")

    Args:
        experiment: the model, the method and all settings; its source and output folder play no part.
        sharpen: let class activation maps follow the image's edges with DenseCRF (`experiment.crf`). Without it a pixel
            is background where no class scores above `experiment.evaluate.threshold`.
    """

    def __init__(self, experiment: Experiment, sharpen: bool = False) -> None:
        self.experiment, self.sharpen = experiment, sharpen
        self._method, self._settings = chosen_method(experiment)
        self._rank = current_rank()
        self._model = load_model(experiment.model, self._rank.device)
        self._filter = CategoryFilter(experiment.filter, experiment.captions, self._rank.device)
        self._predictor: tuple[tuple[Vocabulary, bool], Predictor] | None = None

    @classmethod
    def from_pretrained(cls, name: str, method: str = "diffsegmenter", sharpen: bool = False) -> "Segmenter":
        """Load a model by its name on the hub or its folder, with the method's default settings.

        `shapes`, the small model that ships, brings the settings that were chosen for it.

        Raises:
            ModelError: if it cannot be loaded.
        """
        is_shipped = resolve_shipped("config", name) != name
        experiment = load_experiment(name) if is_shipped else Experiment(model=ModelConfig(name=name))
        return cls(replace(experiment, method=method), sharpen)

    def __call__(self, image: ImageLike, classes: Sequence[str] | str | None = None) -> Segmentation:
        """Segment one image.

        Args:
            image: of any mode, or uint8 (H, W), (H, W, 3) or (H, W, 4), or an image file's path or bytes; set upright
                by its EXIF orientation, with transparency laid on white.
            classes: names of what is in it; or a vocabulary's name or file, such as `voc`, of whose classes the
                category filter picks; or `auto`, which takes the nouns of a caption. None is `auto`, but with DiffSeg
                it gives regions without names.

        Raises:
            VocabularyError: if there is no such vocabulary.
            ValueError: if the image cannot be read or segmented so; the message says why.
        """
        result = next(self.segment({"image": image}, classes))[1]
        if isinstance(result, SampleError):
            raise ValueError(str(result))
        return result

    def segment(
        self, images: Mapping[str, ImageLike], classes: Sequence[str] | str | None = None
    ) -> Iterator[tuple[str, Segmentation | SampleError]]:
        """Segment images by name, in batches; each comes with its result or with what is wrong with it."""
        decoded: dict[str, Image.Image] = {}
        for name, image in images.items():
            try:
                decoded[name] = decode(image, name, self.experiment.source.max_pixels)
            except SampleError as error:
                yield name, error
        if not decoded:
            return
        names_wanted = classes is not None or self._method.name_segments is None
        vocabulary, found = self._choose(decoded, classes) if names_wanted else (load_vocabulary("voc"), {})
        samples = [Sample(NOISE_KEY, image, found.get(name, ())) for name, image in decoded.items()]
        outcomes = self._predictor_of(vocabulary, names_wanted)(samples)
        for name, (sample, outcome) in zip(decoded, outcomes, strict=True):
            if isinstance(outcome, SampleError):
                yield name, outcome
                continue
            try:
                result = self._finish(sample, outcome, vocabulary if names_wanted else None)
            except SampleError as error:
                yield name, error
            else:
                yield name, result

    def _choose(
        self, images: dict[str, Image.Image], classes: Sequence[str] | str | None
    ) -> tuple[Vocabulary, dict[str, tuple[int, ...]]]:
        """The vocabulary, and the classes of each image by key."""
        if classes is None or classes == "auto":
            return self._choose_nouns(images)
        names = typed_names(classes) if isinstance(classes, str) else classes
        if names is not None:
            if not names:
                raise VocabularyError("no class is given; name what is in the image, or say auto")
            vocabulary = vocabulary_of(names)
            return vocabulary, dict.fromkeys(images, tuple(range(1, len(vocabulary) + 1)))
        vocabulary = load_vocabulary(str(classes))
        guesses = self._filter(list(images.values()), vocabulary)
        return vocabulary, {key: guess.classes for key, guess in zip(images, guesses, strict=True)}

    def _choose_nouns(self, images: dict[str, Image.Image]) -> tuple[Vocabulary, dict[str, tuple[int, ...]]]:
        nouns = dict(zip(images, self._filter.nouns(list(images.values())), strict=True))
        things = {key: [noun for noun in found if noun not in PICTURE_WORDS] for key, found in nouns.items()}
        names = sorted({name for found in things.values() for name in found})
        if not names:
            return load_vocabulary("voc"), {}
        vocabulary = vocabulary_of(names)
        return vocabulary, {key: tuple(sorted(map(vocabulary.index, found))) for key, found in things.items()}

    def _predictor_of(self, vocabulary: Vocabulary, with_names: bool) -> Predictor:
        """The method's predictor; only the latest is kept, for each batch of guessed classes has its own vocabulary."""
        key = (vocabulary, with_names)
        if self._predictor is None or self._predictor[0] != key:
            settings, work = self._settings, self.experiment.work
            if self._method.name_segments is not None:
                settings = self._method.name_segments(settings, with_names)
            workers = work.workers or self._rank.cores()
            model, device = self._model, self._rank.device
            context = Context(device, vocabulary, model, None, work.batch, work.seed, work.loaders, workers)
            # The former one lives until this one is made, so that they share the models that both need.
            self._predictor = key, self._method.build(context, settings)
        return self._predictor[1]

    def _finish(self, sample: Sample, outcome: ScoreMaps | LabelMap, vocabulary: Vocabulary | None) -> Segmentation:
        labels = outcome.labels if isinstance(outcome, LabelMap) else self._labels(sample, outcome)
        found = [int(label) for label in np.unique(labels) if label not in (BACKGROUND, IGNORE)]
        names = {label: vocabulary.names[label] if vocabulary is not None else f"region {label}" for label in found}
        return Segmentation(sample.image, labels, names)

    def _labels(self, sample: Sample, cams: ScoreMaps) -> np.ndarray:
        scores = at_image_size(cams.maps, cams.size)
        if not self.sharpen:
            return label_map(scores, cams.classes, self.experiment.evaluate.threshold)
        crf = replace(self.experiment.crf, ignore_below=0.0)  # every pixel of a mask that is asked for has a label
        with crf_failures(self._model.device):
            return refine(np.asarray(sample.image), scores, cams.classes, crf, self._model.device)[0]


def decode(image: ImageLike, origin: str, max_pixels: int) -> Image.Image:
    """Any image as upright 8-bit RGB.

    Raises:
        SampleError: if it cannot be read, or is too large.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image, origin, max_pixels)
    if isinstance(image, bytes):
        return decode_image(image, origin, max_pixels)[0]
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise SampleError("unreadable", f"an array {image.dtype} {image.shape}; give uint8 (H, W) or (H, W, 3)")
        return upright_rgb(Image.fromarray(image), origin, max_pixels)
    if not isinstance(image, (str, Path)):
        raise SampleError("unreadable", f"a {type(image).__name__}; give a PIL image, an array, a path or bytes")
    return decode_image(read_bytes(Location(str(image))), printable(str(image)), max_pixels)[0]
