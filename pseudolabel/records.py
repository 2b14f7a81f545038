"""The records that travel from step to step: `Sample`, `ScoreMaps`, `LabelMap`, `Failure`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image

BACKGROUND = 0
IGNORE = 255
Kind = Literal["cams", "masks", "segments"]
"""What shards hold: score maps, label maps of the vocabulary's classes, or label maps that only tell regions apart."""
Order = Literal["first", "worst", "best", "random"]
"""Which masks to show: the first, those of least or most confidence, or random ones."""
T = TypeVar("T")


@dataclass(frozen=True)
class EncodedImage:
    """An image file in memory, which takes far less of it than the pixels.

    Attributes:
        size: (height, width) of the upright image.
        decode: gives the upright RGB image.
        original: the file's bytes if they are an upright RGB JPEG already, else None.
    """

    size: tuple[int, int]
    decode: Callable[[], Image.Image]
    original: bytes | None = None


@dataclass(frozen=True)
class Sample:
    """One image with its image-level labels, ready for a method.

    Attributes:
        key: unique within its source and safe as a tar member name: no dots, no leading slash, no `..`.
        content: the upright RGB image, or its file.
        classes: sorted vocabulary indices, 1..N; background (0) is never among them.
        view: what a predictor's `view` made of the image while it was decoded; None if it was not asked.
    """

    key: str
    content: Image.Image | EncodedImage
    classes: tuple[int, ...]
    view: Any = None

    @property
    def image(self) -> Image.Image:
        """Upright RGB image; one that is held as a file is decoded at each call."""
        return self.content.decode() if isinstance(self.content, EncodedImage) else self.content

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, without decoding it."""
        return self.content.size if isinstance(self.content, EncodedImage) else self.content.size[::-1]

    @property
    def original(self) -> bytes | None:
        """The source's bytes if they are an upright RGB JPEG already, else None."""
        return self.content.original if isinstance(self.content, EncodedImage) else None

    def viewed(self, view: Callable[[Image.Image], T]) -> T:
        """The sample's view; made now if it was not made while the image was decoded."""
        return view(self.image) if self.view is None else self.view


@dataclass(frozen=True)
class ScoreMaps:
    """The class activation maps (CAMs) of one sample.

    Attributes:
        key: the sample's key.
        classes: the C vocabulary indices that the maps belong to, in the maps' order.
        maps: float16 (C, h, w) at the attention's resolution, stretched to [0, 1] so that float16 holds them well.
            They are min-max scaled again once they are at image size (`pseudolabel.score_maps.at_image_size`).
        size: (height, width) of the image.
        final: whether the maps are scores already, in [0, 1], which are enlarged and never scaled again.
    """

    key: str
    classes: tuple[int, ...]
    maps: np.ndarray
    size: tuple[int, int]
    final: bool = False


@dataclass(frozen=True)
class LabelMap:
    """A pseudo-mask or a ground-truth mask.

    Attributes:
        key: the sample's key.
        labels: uint8 (H, W); 0 is background, 1..N are vocabulary classes, 255 is ignored.
        confidence: float32 (H, W) in [0, 1], the probability of each pixel's label; None where a method has none.
        best: uint8 (H, W), the most probable label, also of pixels that are ignored for being improbable; None where
            it is `labels`.
    """

    key: str
    labels: np.ndarray
    confidence: np.ndarray | None = None
    best: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be labelled: its key, where it was named, a status word and the message."""

    key: str
    origin: str
    status: str
    message: str
