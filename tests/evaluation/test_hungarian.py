"""Matched segments against trying out every way to hand out the labels."""

import math
from itertools import permutations

import numpy as np
import pytest

from pseudolabel.evaluation.hungarian import Hungarian

VOID = 255


def label_map(seed, values, ignored=0.0, shape=(61, 73)):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array(values, np.uint8), shape)
    labels[rng.random(shape) < ignored] = VOID
    return labels


def best_assignment(truth, segments, labels):
    """Of all ways to give each segment a label of its own, or none, the one with the most hits: {segment: label}.

    Of several, as the matcher does, one that leaves no segment without a label for which there is one.
    """
    found = [int(value) for value in np.unique(segments) if value != VOID]
    spare = [None] * max(0, len(found) - len(labels))
    ways = [dict(zip(found, way, strict=False)) for way in permutations([*labels, *spare], len(found))]
    return max(ways, key=lambda way: sum(hits(truth, segments, *pair) for pair in way.items()))


def hits(truth, segments, segment, label):
    return int(((segments == segment) & (truth == label)).sum()) if label is not None else 0


def counted(images, labels, protocol):
    """Hits, true and predicted pixels by label, (labels, 3), counted one by one."""
    counts = {label: np.zeros(3, int) for label in labels}
    for truth, segments in images:
        valid = (truth != VOID) & (segments != VOID) & np.isin(truth, labels)
        truth, segments = np.where(valid, truth, VOID), np.where(valid, segments, VOID)
        for label in labels:
            counts[label][1] += (truth == label).sum()
        for segment, label in best_assignment(truth, segments, labels).items():
            hit = hits(truth, segments, segment, label)
            if label is not None and (hit or protocol == "official"):
                counts[label] += (hit, 0, (segments == segment).sum())
    return np.stack(list(counts.values()))


@pytest.mark.parametrize("segments", [1, 3, 5, 6])
@pytest.mark.parametrize("has_background", [True, False])
def test_the_assignment_is_optimal(segments, has_background):
    """On random pixels no two assignments have equally many hits, except for unmatched segments."""
    labels = range(5) if has_background else range(1, 5)
    images = [
        (label_map(seed, [0, 1, 2, 4][seed % 2 :], 0.1), label_map(seed + 9, range(1, segments + 1), 0.1))
        for seed in range(4)
    ]
    found = Hungarian.empty(4, has_background)
    for truth, predicted in images:
        found.add(truth, predicted)
    matched, official = counted(images, labels, "matched"), counted(images, labels, "official")
    expected = {"hits": matched[:, 0], "counts": matched[:, 1], "predicted": matched[:, 2]}
    for part in (found.matched, found.official):
        np.testing.assert_array_equal(part.hits[labels.start :], expected["hits"])
        np.testing.assert_array_equal(part.counts.sum(1)[labels.start :], expected["counts"])
    np.testing.assert_array_equal(found.matched.predicted[labels.start :], expected["predicted"])
    if segments <= len(labels):  # else any of them may get the absent labels
        assert found.official.predicted.sum() == official[:, 2].sum()
    hit, true, predicted = matched[matched[:, 1] > 0].T
    assert found.miou_matched == pytest.approx((hit / (true + predicted - hit)).mean())
    assert found.accuracy == pytest.approx(matched[:, 0].sum() / matched[:, 1].sum())


def test_a_small_example_counted_by_hand():
    truth = np.array([[1, 1, 1, 1, 1, 2, 2, 2]], np.uint8)
    segments = np.array([[1, 1, 1, 3, 3, 2, 2, 1]], np.uint8)
    counts = Hungarian.empty(3, has_background=False)
    counted, matched = counts.add(truth, segments)
    np.testing.assert_array_equal(counted, truth)
    # Segment 3 is unmatched: class 3, which is not in the image, takes it in the official protocol.
    np.testing.assert_array_equal(matched, [[1, 1, 1, VOID, VOID, 2, 2, 1]])
    np.testing.assert_array_equal(counts.official.counts[1:, 1:], [[3, 0, 2, 0], [1, 2, 0, 0], [0, 0, 0, 0]])
    assert counts.accuracy == 5 / 8
    assert counts.miou_official == counts.miou_matched == (3 / 6 + 2 / 3) / 2
    other = np.full((1, 8), 3, np.uint8)
    counts.add(other, other)
    assert counts.miou_official == pytest.approx((3 / 6 + 2 / 3 + 8 / 10) / 3)
    assert counts.miou_matched == pytest.approx((3 / 6 + 2 / 3 + 8 / 8) / 3)


def test_a_label_without_a_segment_is_missed():
    truth = np.repeat(np.array([0, 1, 2], np.uint8), 4).reshape(1, 12)
    counts = Hungarian.empty(2, has_background=True)
    counts.add(truth, np.where(truth == 0, np.uint8(7), np.uint8(9)))
    assert counts.accuracy == 8 / 12
    assert counts.miou_matched == pytest.approx((1 + 4 / 8 + 0) / 3)


def test_segment_numbers_do_not_matter():
    truth, segments = label_map(0, range(5)), label_map(1, range(4))
    truth[:6], segments[:6] = 2, 3
    one, other = Hungarian.empty(4, True), Hungarian.empty(4, True)
    one.add(truth, segments)
    other.add(truth, (segments * 60 + 11).astype(np.uint8))
    np.testing.assert_array_equal(one.matched.counts, other.matched.counts)


def test_a_relabelled_truth_scores_one():
    truth = label_map(3, range(6), 0.2)
    counts = Hungarian.empty(5, True)
    counts.add(truth, np.where(truth == VOID, 77, 200 - truth).astype(np.uint8))
    assert counts.accuracy == counts.miou_official == counts.miou_matched == 1


def test_the_sum_counts_both():
    parts, together = [Hungarian.empty(4, True), Hungarian.empty(4, True)], Hungarian.empty(4, True)
    for seed, part in enumerate(parts):
        for counts in (part, together):
            counts.add(label_map(seed, range(5)), label_map(seed + 5, range(7)))
    total = parts[0] + parts[1]
    np.testing.assert_array_equal(total.official.counts, together.official.counts)
    np.testing.assert_array_equal(total.matched.counts, together.matched.counts)
    with pytest.raises(ValueError, match="background"):
        parts[0] + Hungarian.empty(4, False)


@pytest.mark.filterwarnings("error")
def test_empty_counts_are_nan_without_warnings():
    counts = Hungarian.empty(3, True)
    counts.add(np.full((2, 2), VOID, np.uint8), np.ones((2, 2), np.uint8))
    assert math.isnan(counts.miou_official)
    assert math.isnan(counts.miou_matched)
    assert math.isnan(counts.accuracy)


@pytest.mark.parametrize(
    ("truth", "segments", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "shape"),
        (np.full((2, 2), 5, np.uint8), np.zeros((2, 2), np.uint8), "truth has label 5"),
    ],
)
def test_mismatched_input_is_refused(truth, segments, message):
    with pytest.raises(ValueError, match=message):
        Hungarian.empty(4, True).add(truth, segments)
