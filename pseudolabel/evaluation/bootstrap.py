"""How far a mean IoU would vary with other images: the bootstrap over images."""

import numpy as np

from pseudolabel.evaluation.confusion import Confusion

LEVEL = 0.95


def bootstrap_mious(counts: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """The mean IoU of each of many data sets that are drawn from the images with replacement.

    With equal seeds the same images are drawn, so that the differences of two methods' values are paired.

    Args:
        counts: int64 (images, N + 1, N + 2), `Confusion.counts` of each image.
        draws: number of data sets.
        seed: of the draws.

    Returns:
        Float64 (draws,) in [0, 1].

    Raises:
        ValueError: if there are no images.
    """
    if not len(counts):
        raise ValueError("no images to draw from")
    images = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), draws)
    return np.array([Confusion(np.tensordot(drawn, counts, 1)).miou for drawn in images])


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the values: the percentile interval."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
