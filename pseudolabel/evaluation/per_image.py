"""Scores of single images, whose mean is FreeSeg-Diff's published figure."""

import numpy as np

from pseudolabel.records import IGNORE


def image_miou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean IoU of one image over the labels, background too, that are in its truth.

    Args:
        truth: uint8 (H, W); pixels of 255 are not counted.
        prediction: uint8 (H, W); 255 is no label.

    Returns:
        In [0, 1]; NaN if no pixel is counted.
    """
    valid = truth != IGNORE
    hits = np.bincount(truth[valid & (truth == prediction)], minlength=256)
    true, predicted = (np.bincount(labels[valid], minlength=256) for labels in (truth, prediction))
    present = true > 0
    return float((hits / np.maximum(true + predicted - hits, 1))[present].mean()) if present.any() else float("nan")
