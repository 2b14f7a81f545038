"""SEPL's rule against its plain version, and by hand."""

import numpy as np
import pytest

from pseudolabel.crf.class_regions import take_regions
from pseudolabel.crf.scores import Decision
from tests.plain.sepl import adjust

CLASSES = (2, 5, 7)


def decision(best, confidence=None, ignored=None):
    best = np.asarray(best, np.uint8)
    sure = np.full(best.shape, 0.9, np.float32) if confidence is None else np.asarray(confidence, np.float32)
    labels = best.copy()
    if ignored is not None:
        labels[ignored] = 255
    return Decision(labels, sure, best)


def blobs(rng, shape, count):
    """Masks that overlap: rectangles, one of them empty."""
    masks = [np.zeros(shape, bool)]
    for _ in range(count):
        top, left = (int(rng.integers(side)) for side in shape)
        mask = np.zeros(shape, bool)
        mask[top : top + int(rng.integers(1, 7)), left : left + int(rng.integers(1, 7))] = True
        masks.append(mask)
    return masks


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_plain_rule(seed):
    rng = np.random.default_rng(seed)
    shape = (11, 9)
    best = np.zeros(shape, np.uint8)
    for mask, label in zip(blobs(rng, shape, 5), (2, 5, 7, 2, 5, 0), strict=True):
        best[mask] = label
    given = decision(best, rng.random(shape), rng.random(shape) < 0.3)
    masks = blobs(rng, shape, 12)
    found = take_regions(given, masks, CLASSES)
    labels, now = adjust(best.tolist(), given.labels.tolist(), [mask.tolist() for mask in masks], CLASSES)
    assert found.labels.tolist() == labels
    assert found.best.tolist() == now
    assert found.labels.dtype == found.best.dtype == np.uint8
    assert found.confidence.dtype == np.float32
    assert not np.array_equal(found.labels, given.labels)
    same = found.best == best
    assert np.array_equal(found.confidence[same], given.confidence[same])
    assert (found.confidence[~same] <= np.minimum(given.confidence, 1 - given.confidence)[~same] + 1e-7).all()


def test_more_than_half_is_needed_of_a_mask():
    best = [[2, 2, 0, 0]]
    half, more = np.array([[1, 0, 0, 1]], bool), np.array([[1, 1, 1, 0]], bool)
    assert take_regions(decision(best), [half], (2,)).labels.tolist() == [[0, 2, 0, 0]]  # not taken, but covered
    assert take_regions(decision(best), [more], (2,)).labels.tolist() == [[2, 2, 2, 0]]


@pytest.mark.parametrize(("covered", "taken"), [(17, True), (16, False)])
def test_a_mask_around_most_of_a_class_is_its(covered, taken):
    best = np.zeros((1, 100), np.uint8)
    best[0, :20] = 2
    mask = np.zeros((1, 100), bool)
    mask[0, 20 - covered : 90] = True
    labels = take_regions(decision(best), [mask], (2,)).labels
    assert (labels[0, 20 - covered : 90] == (2 if taken else 0)).all()
    assert (labels[0, : 20 - covered] == 2).all()


def test_uncovered_pixels_and_ignored_background_stay():
    given = decision([[2, 2, 0, 5]], ignored=np.array([[True, False, True, True]]))
    found = take_regions(given, [np.array([[0, 1, 0, 0]], bool), np.array([[0, 0, 1, 0]], bool)], (2, 5))
    assert found.labels.tolist() == [[255, 2, 255, 255]]
    assert found.best.tolist() == [[2, 2, 0, 5]]


def test_ignored_pixels_of_a_class_gain_its_label_in_its_masks():
    found = take_regions(decision([[2, 2, 0]], ignored=np.array([[True, False, False]])), [np.ones((1, 3), bool)], (2,))
    assert found.labels.tolist() == [[2, 2, 2]]


def test_no_masks_change_nothing():
    given = decision([[2, 0, 5]])
    found = take_regions(given, [], (2, 5))
    assert all(np.array_equal(now, before) for now, before in zip(found, given, strict=True))
