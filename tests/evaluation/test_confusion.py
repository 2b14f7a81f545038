"""The confusion matrix against counting by hand and MMSegmentation's metric."""

import json
import math

import numpy as np
import pytest

from pseudolabel.evaluation.confusion import Confusion


def label_maps(seed: int, classes: int, ignored: float, shape: tuple[int, int] = (23, 31)) -> np.ndarray:
    """Random labels 0..classes, a share `ignored` of them 255."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 1, shape).astype(np.uint8)
    labels[rng.random(shape) < ignored] = 255
    return labels


def test_a_small_example_counted_by_hand():
    truth = np.array([[0, 0, 0, 1, 1, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1, 1, 255, 0, 1]], np.uint8)
    confusion = Confusion.empty(2)
    confusion.add(truth, prediction)
    np.testing.assert_array_equal(confusion.counts, [[2, 1, 0, 0], [1, 2, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(confusion.iou, [2 / 4, 2 / 5, np.nan])
    np.testing.assert_allclose(confusion.iou_covered, [2 / 4, 2 / 4, np.nan])
    np.testing.assert_allclose(confusion.precision, [2 / 3, 2 / 3, np.nan])
    np.testing.assert_allclose(confusion.recall, [2 / 3, 2 / 4, np.nan])
    assert confusion.miou == pytest.approx((2 / 4 + 2 / 5) / 2)
    assert confusion.miou_covered == pytest.approx(1 / 2)
    assert confusion.coverage == pytest.approx(6 / 7)


@pytest.mark.parametrize("classes", [1, 20, 80, 254])
@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_counts_equal_a_loop_over_pixels(classes, ignored):
    truth, prediction = label_maps(1, classes, 0.1), label_maps(2, classes, ignored)
    expected = np.zeros((classes + 1, classes + 2), int)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            expected[t, classes + 1 if p == 255 else p] += 1
    confusion = Confusion.empty(classes)
    confusion.add(truth, prediction)
    np.testing.assert_array_equal(confusion.counts, expected)
    assert confusion.counts.dtype == np.int64


def test_miou_equals_mmsegmentation():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("mmseg.evaluation.metrics")
    classes = 6
    metric = metrics.IoUMetric(iou_metrics=["mIoU", "mFscore"])
    metric.dataset_meta = {"classes": [str(index) for index in range(classes + 1)]}
    confusion = Confusion.empty(classes)
    for seed in range(4):
        truth, prediction = label_maps(seed, classes - 1, 0.15), label_maps(seed + 50, classes - 1, 0.1)
        truth[:10] = prediction[:10]  # so that classes score differently from chance
        confusion.add(truth, prediction)
        pair = {"pred_sem_seg": prediction, "gt_sem_seg": truth}
        samples = {name: {"data": torch.from_numpy(labels)} for name, labels in pair.items()}
        metric.process({}, [samples])
    areas = [sum(column) for column in zip(*metric.results, strict=True)]
    theirs = metric.total_area_to_metrics(*areas, metric.metrics)
    assert np.isnan(theirs["IoU"][classes])  # the last class is never seen
    np.testing.assert_allclose(confusion.iou, theirs["IoU"], rtol=1e-6)
    np.testing.assert_allclose(confusion.precision, theirs["Precision"], rtol=1e-6)
    np.testing.assert_allclose(confusion.recall, theirs["Recall"], rtol=1e-6)
    assert round(100 * confusion.miou, 2) == pytest.approx(metric.compute_metrics(metric.results)["mIoU"], abs=1e-4)


def test_covered_scores_exclude_ignored_pixels():
    truth, prediction = label_maps(3, 4, 0.1), label_maps(4, 4, 0.4)
    everything, covered = Confusion.empty(4), Confusion.empty(4)
    everything.add(truth, prediction)
    covered.add(np.where(prediction == 255, np.uint8(255), truth), prediction)
    assert everything.miou_covered == covered.miou
    assert everything.miou < everything.miou_covered
    assert covered.coverage == 1


def test_the_sum_counts_both():
    together, parts = Confusion.empty(3), [Confusion.empty(3), Confusion.empty(3)]
    for seed, part in enumerate(parts):
        truth, prediction = label_maps(seed, 3, 0.1), label_maps(seed + 9, 3, 0.1)
        together.add(truth, prediction)
        part.add(truth, prediction)
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, together.counts)
    with pytest.raises(ValueError, match="3 and 4 classes"):
        parts[0] + Confusion.empty(4)


def test_json_round_trip():
    confusion = Confusion.empty(5)
    confusion.add(label_maps(0, 5, 0.1), label_maps(1, 5, 0.1))
    back = Confusion.from_dict(json.loads(json.dumps(confusion.to_dict())))
    np.testing.assert_array_equal(back.counts, confusion.counts)
    assert back.counts.dtype == np.int64
    with pytest.raises(ValueError, match="not a confusion"):
        Confusion.from_dict({"counts": [[1, 2], [3, 4]]})


@pytest.mark.filterwarnings("error")
def test_empty_counts_are_nan_without_warnings():
    confusion = Confusion.empty(2)
    confusion.add(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8))
    assert not confusion.counts.any()
    assert math.isnan(confusion.miou)
    assert math.isnan(confusion.coverage)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "shape"),
        (np.full((2, 2), 21, np.uint8), np.zeros((2, 2), np.uint8), "truth has label 21"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 254, np.uint8), "prediction has label 254"),
        (np.zeros((2, 2), int), np.zeros((2, 2), np.uint8), "truth must be uint8"),
    ],
)
def test_invalid_labels_are_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        Confusion.empty(20).add(truth, prediction)
