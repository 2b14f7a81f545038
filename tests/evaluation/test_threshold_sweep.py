"""The sweep compared with labelling and counting separately at every threshold."""

import json
import math

import numpy as np
import pytest

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.threshold_sweep import THRESHOLDS, ThresholdSweep
from pseudolabel.score_maps import label_map

CLASSES = 5


def cases() -> list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
    """Truth, scores and classes; a third of the scores equal a threshold, and some classes tie."""
    rng = np.random.default_rng(0)
    made = []
    for classes in [(1,), (2, 5), (1, 3, 4), (), (5, 2, 1)]:
        truth = rng.choice(np.array([0, 1, 2, 3, 4, 5, 255], np.uint8), (20, 30))
        right = truth == np.array(classes, int).reshape(-1, 1, 1)
        scores = (0.4 * right + 0.6 * rng.random((len(classes), 20, 30))).astype(np.float32)
        snapped = rng.random(scores.shape) < 0.3
        scores[snapped] = THRESHOLDS[rng.integers(0, 101, int(snapped.sum()))]
        scores[:, :2] = scores[:1, :2]
        made.append((truth, scores, classes))
    return made


def direct(threshold: float) -> Confusion:
    """Background as one more score map in front, then the first largest."""
    confusion = Confusion.empty(CLASSES)
    for truth, scores, classes in cases():
        stacked = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), scores])
        confusion.add(truth, np.array([0, *classes], np.uint8)[stacked.argmax(0)])
    return confusion


@pytest.fixture(scope="module")
def sweep() -> ThresholdSweep:
    sweep = ThresholdSweep.empty(CLASSES)
    for case in cases():
        sweep.add(*case)
    return sweep


def test_every_threshold_is_exact(sweep):
    confusions = list(sweep.confusions())
    assert len(confusions) == 101
    for step, confusion in enumerate(confusions):
        np.testing.assert_array_equal(confusion.counts, direct(step / 100).counts)
        np.testing.assert_array_equal(sweep.at(step / 100).counts, confusion.counts)
    assert len({confusion.counts.tobytes() for confusion in confusions}) == 101


def test_agrees_with_label_map(sweep):
    confusion = Confusion.empty(CLASSES)
    for truth, scores, classes in cases():
        confusion.add(truth, label_map(scores, classes, 0.37))
    np.testing.assert_array_equal(sweep.at(0.37).counts, confusion.counts)


def test_the_oracle_is_the_best_threshold(sweep):
    mious = [direct(step / 100).miou for step in range(101)]
    np.testing.assert_allclose(sweep.curve(), mious)
    best, threshold = sweep.oracle()
    assert best == max(mious)
    assert threshold == mious.index(max(mious)) / 100
    assert 0 < threshold < 1


def test_sum_and_json(sweep):
    parts = []
    for case in cases():
        part = ThresholdSweep.empty(CLASSES)
        part.add(*case)
        parts.append(ThresholdSweep.from_dict(json.loads(json.dumps(part.to_dict()))))
    together = sum(parts[1:], start=parts[0])
    np.testing.assert_array_equal(together.counts, sweep.counts)
    with pytest.raises(ValueError, match="5 and 6 classes"):
        sweep + ThresholdSweep.empty(6)


def test_no_pixels():
    best, _ = ThresholdSweep.empty(3).oracle()
    assert math.isnan(best)


@pytest.mark.parametrize("threshold", [-0.01, 1.01, 0.455])
def test_thresholds_outside_the_sweep_are_refused(sweep, threshold):
    with pytest.raises(ValueError, match="not a multiple"):
        sweep.at(threshold)


@pytest.mark.parametrize(
    ("truth", "scores", "classes", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((1, 2, 3), np.float32), (1,), "shape"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.float32), (1, 2), "2 classes"),
        (np.zeros((2, 2), np.uint8), np.full((1, 2, 2), 1.01, np.float32), (1,), "0, 1"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.float32), (6,), "class 6"),
        (np.full((2, 2), 6, np.uint8), np.zeros((1, 2, 2), np.float32), (1,), "truth has label 6"),
    ],
)
def test_invalid_input_is_refused(truth, scores, classes, message):
    with pytest.raises(ValueError, match=message):
        ThresholdSweep.empty(CLASSES).add(truth, scores, classes)
