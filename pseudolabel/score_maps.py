"""From maps at the attention's resolution to scores and labels at the image's (DiffSegmenter, section 3.2)."""

import numpy as np
import torch
import torch.nn.functional as F

from pseudolabel.records import BACKGROUND

# Interpolating equal float32 values leaves differences of a few units in the last place. They must not be blown up
# to [0, 1]; the smallest real difference between stored float16 values is a thousand times this share of them.
CONSTANT_SPAN = 1e-6


def at_image_size(maps: torch.Tensor | np.ndarray, size: tuple[int, int], final: bool = False) -> np.ndarray:
    """Enlarge maps bilinearly (corners not aligned) to the image's size, then scale each class to [0, 1].

    Args:
        maps: floating (C, h, w); C may be 0.
        size: (height, width) of the image.
        final: whether the maps are in [0, 1] already and must not be scaled, such as those of `import-cams`.

    Returns:
        float32 (C, height, width) in [0, 1]; unless `final`, each class has smallest value 0 and largest 1, and a
        constant map is all 0.

    Raises:
        ValueError: if the maps are not (C, h, w) or hold a value that is not finite.
    """
    tensor = torch.as_tensor(maps)
    check_maps(tensor)
    return enlarge(tensor, size, final).cpu().numpy()


def check_maps(maps: torch.Tensor) -> None:
    """Raises ValueError if the maps are not (C, h, w) or hold a value that is not finite."""
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must have shape (C, h, w), not {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        raise ValueError("maps hold values that are not finite")


def enlarge(maps: torch.Tensor, size: tuple[int, int], final: bool = False) -> torch.Tensor:
    """`at_image_size` of maps that are in order, on their own device: float32 (C, height, width)."""
    if len(maps) == 0:
        return torch.zeros((0, *size), device=maps.device)
    enlarged = F.interpolate(maps.float()[None], size=size, mode="bilinear", align_corners=False)[0]
    return enlarged.clamp(0, 1) if final else min_max(enlarged)  # interpolating may leave [0, 1] by one rounding


def square(rows: torch.Tensor) -> torch.Tensor:
    """Maps (..., n), row by row, as (..., side, side)."""
    side = int(rows.shape[-1] ** 0.5)
    return rows.unflatten(-1, (side, side))


def min_max(maps: torch.Tensor) -> torch.Tensor:
    """Scale each map of float32 (..., h, w) to [0, 1]; a constant map becomes zeros."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    constant = high - low <= CONSTANT_SPAN * torch.maximum(low.abs(), high.abs())
    scaled = (maps - low) / torch.where(constant, 1.0, high - low)
    return torch.where(constant, 0.0, scaled)


def winners(scores: np.ndarray, classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The class with the largest score at every pixel, and that score; the earlier class wins a tie.

    Args:
        scores: float32 (C, H, W) in [0, 1].
        classes: the C vocabulary indices that the scores belong to.

    Returns:
        uint8 (H, W) vocabulary indices and float32 (H, W) scores; background with score 0 where C is 0.

    Raises:
        ValueError: if there are not as many score maps as classes.
    """
    if scores.ndim != 3 or len(scores) != len(classes):
        raise ValueError(f"scores of shape {scores.shape} do not fit {len(classes)} classes")
    if not classes:
        return np.full(scores.shape[1:], BACKGROUND, np.uint8), np.zeros(scores.shape[1:], np.float32)
    best = scores.argmax(0)
    return np.array(classes, np.uint8)[best], np.take_along_axis(scores, best[None], 0)[0]


def label_map(scores: np.ndarray, classes: tuple[int, ...], threshold: float) -> np.ndarray:
    """Labels where background has the score `threshold` everywhere: uint8 (H, W).

    A pixel is foreground iff its largest class score is greater than `threshold` rounded to float32, the scores' own
    precision; ties go to background.

    Args:
        scores: float32 (C, H, W) in [0, 1].
        classes: the C vocabulary indices that the scores belong to.
        threshold: the background's score.

    Raises:
        ValueError: if there are not as many score maps as classes.
    """
    winner, score = winners(scores, classes)
    return np.where(score > np.float32(threshold), winner, np.uint8(BACKGROUND))
