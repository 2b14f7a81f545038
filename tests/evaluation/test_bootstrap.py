"""Bootstrap intervals of mean IoU."""

import numpy as np
import pytest

from pseudolabel.evaluation.bootstrap import bootstrap_mious, interval
from pseudolabel.evaluation.confusion import Confusion


def image(hits: int, misses: int) -> np.ndarray:
    """Counts of an image of background and one class; `misses` of its pixels are taken for background."""
    return np.array([[100, 0, 0], [misses, hits, 0]])


def test_draws_are_mean_ious_of_images_drawn_with_replacement() -> None:
    counts = np.stack([image(90, 10), image(50, 50), image(10, 90)])
    expected = {
        round(Confusion(sum(counts[list(chosen)])).miou, 12)
        for chosen in np.ndindex(3, 3, 3)  # type: ignore[call-overload]
    }
    found = bootstrap_mious(counts, draws=400)
    assert {round(value, 12) for value in found} == expected


def test_equal_images_leave_no_doubt() -> None:
    counts = np.stack([image(80, 20)] * 5)
    assert interval(bootstrap_mious(counts)) == pytest.approx((Confusion(counts[0]).miou,) * 2)


def test_draws_are_paired_by_the_seed() -> None:
    rng = np.random.default_rng(3)
    worse = np.stack([image(hits, 100 - hits) for hits in rng.integers(20, 70, 40)])
    better = np.stack([image(hits + 20, 80 - hits) for hits in worse[:, 1, 1]])
    differences = bootstrap_mious(better) - bootstrap_mious(worse)
    low, high = interval(differences)
    assert 0 < low < Confusion(better.sum(0)).miou - Confusion(worse.sum(0)).miou < high
    assert np.array_equal(bootstrap_mious(worse), bootstrap_mious(worse))
    assert not np.array_equal(bootstrap_mious(worse), bootstrap_mious(worse, seed=1))


def test_the_interval_is_that_of_the_binomial_distribution() -> None:
    """An image is a hit or a miss as a whole: the share of hits among n draws has a known spread."""
    n = 200
    counts = np.stack([np.array([[0, 0, 0], [0, 1, 0]])] * (n // 2) + [np.array([[0, 0, 0], [0, 0, 1]])] * (n // 2))
    low, high = interval(bootstrap_mious(counts, draws=4000))
    half = 1.96 * (0.25 / n) ** 0.5
    assert low == pytest.approx(0.5 - half, abs=0.008)
    assert high == pytest.approx(0.5 + half, abs=0.008)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        bootstrap_mious(np.zeros((0, 2, 3), np.int64))
