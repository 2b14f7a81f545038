"""How hard the scenes of Shapes are."""

from dataclasses import dataclass
from typing import Literal

Name = Literal["easy", "standard"]


@dataclass(frozen=True)
class Difficulty:
    """Ranges that scenes are drawn from; pairs are the smallest and the largest value.

    Attributes:
        radius: of an object, in pixels of an image of 128 x 128.
        saturation: of an object's colour, in [0, 1].
        brightness: of an object's colour, in [0, 1].
        hue_jitter: largest difference between an object's hue and its class's, in turns; classes lie .15 turns apart.
        ground_chroma: share of its colourfulness that the ground keeps; at 0 it is grey.
        ground_tint: standard deviation of the background's colour, per channel.
        blobs: largest number of unlabelled shapes of any hue behind the objects.
        touching: probability that an object is placed beside an earlier one, so that they touch or overlap.
    """

    radius: tuple[float, float]
    saturation: tuple[float, float]
    brightness: tuple[float, float]
    hue_jitter: float
    ground_chroma: float
    ground_tint: float
    blobs: int
    touching: float


DIFFICULTIES: dict[Name, Difficulty] = {
    "easy": Difficulty((20.0, 42.0), (0.7, 0.95), (0.7, 0.9), 0.025, 1.0, 0.03, 0, 0.0),
    "standard": Difficulty((10.0, 28.0), (0.55, 0.95), (0.6, 0.9), 0.03, 0.4, 0.03, 2, 0.4),
}
EASY = DIFFICULTIES["easy"]
