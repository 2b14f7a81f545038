"""The records that travel from step to step: `Sample`, `ScoreMaps`, `LabelMap`, `Failure`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

BACKGROUND = 0
IGNORE = 255
Kind = Literal["cams", "masks", "segments"]
"""What shards hold: score maps, label maps of the vocabulary's classes, or label maps that only tell regions apart."""


@dataclass(frozen=True)
class Sample:
    """One image with its image-level labels, ready for a method.

    Attributes:
        key: unique within its source and safe as a tar member name: no dots, no leading slash, no `..`.
        image: upright RGB image.
        classes: sorted vocabulary indices, 1..N; background (0) is never among them.
        original: the source's bytes where they are an upright RGB JPEG already, else None.
    """

    key: str
    image: Image.Image
    classes: tuple[int, ...]
    original: bytes | None = None


@dataclass(frozen=True)
class ScoreMaps:
    """The class activation maps (CAMs) of one sample.

    Attributes:
        key: the sample's key.
        classes: the C vocabulary indices that the maps belong to, in the maps' order.
        maps: float16 (C, h, w) at the attention's resolution, stretched to [0, 1] so that float16 holds them well.
            They are min-max scaled again once they are at image size (`pseudolabel.score_maps.at_image_size`).
        size: (height, width) of the image.
    """

    key: str
    classes: tuple[int, ...]
    maps: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class LabelMap:
    """A pseudo-mask or a ground-truth mask.

    Attributes:
        key: the sample's key.
        labels: uint8 (H, W); 0 is background, 1..N are vocabulary classes, 255 is ignored.
        confidence: float32 (H, W) in [0, 1], the probability of each pixel's label; None where a method has none.
    """

    key: str
    labels: np.ndarray
    confidence: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be labelled: its key, where it was named, a status word and the message."""

    key: str
    origin: str
    status: str
    message: str
