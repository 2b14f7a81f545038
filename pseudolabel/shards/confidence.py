"""How far a mask can be trusted: statistics of each class, and one confidence for the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from pseudolabel.records import BACKGROUND, IGNORE, LabelMap

_TOUCHING = np.ones((3, 3), bool)  # pixels that share a corner belong to one piece
_DIGITS = 6


def judge(mask: LabelMap, classes: Sequence[int]) -> dict[str, Any]:
    """The fields `confidence` and `scores` of a mask's JSON member.

    The image's confidence is the mean of those of background and of each of its classes, where a class without pixels
    counts as 0: a mask that lacks an object of the image-level labels is not to be trusted. It ranks Shapes' masks by
    mIoU better than the mean over pixels does (docs/confidence.md).

    Args:
        mask: labels, with confidence where a method has any.
        classes: the vocabulary indices that the mask was made for.

    Returns:
        `confidence`: in [0, 1]; None without probabilities. `scores`: a dictionary for background and each class:

        - `class`: vocabulary index.
        - `confidence`: mean winning probability of the pixels that the class wins; None where there are none.
        - `unsure`: share of these pixels that are ignored for being improbable.
        - `area`: number of pixels of this label in the mask.
        - `pieces`: number of connected pieces that they form, corners included.
        - `border`: whether any of them is at the image's border.
    """
    best = mask.labels if mask.best is None else mask.best
    rows = [_judge_class(mask, best, index) for index in (BACKGROUND, *classes)]
    if mask.confidence is None:
        return {"confidence": None, "scores": rows}
    mean = float(np.mean([row["confidence"] or 0.0 for row in rows]))
    return {"confidence": round(mean, _DIGITS), "scores": rows}


def _judge_class(mask: LabelMap, best: np.ndarray, index: int) -> dict[str, Any]:
    won, inside = best == index, mask.labels == index
    confidence = None
    if mask.confidence is not None and won.any():
        confidence = round(float(mask.confidence[won].mean(dtype=np.float64)), _DIGITS)
    edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return {
        "class": int(index),
        "confidence": confidence,
        "unsure": round(float((mask.labels[won] == IGNORE).mean()), _DIGITS) if won.any() else 0.0,
        "area": int(inside.sum()),
        "pieces": int(ndimage.label(inside, _TOUCHING)[1]),
        "border": any(bool(edge.any()) for edge in edges),
    }
