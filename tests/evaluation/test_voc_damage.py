"""VOC ground truth damaged in known ways, scored on real images' masks against independently computed IoUs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep

CLASSES = 20
HORSE, DOG = 13, 12


@pytest.fixture(scope="module")
def truths(voc_sample: Path) -> list[np.ndarray]:
    masks = sorted((voc_sample / "SegmentationClass").glob("*.png"))
    return [np.array(Image.open(mask)) for mask in masks]


def scored(truths: list[np.ndarray], predictions: list[np.ndarray]) -> Confusion:
    confusion = Confusion.empty(CLASSES)
    for truth, prediction in zip(truths, predictions, strict=True):
        confusion.add(truth, prediction)
    return confusion


def ious(truths: list[np.ndarray], predictions: list[np.ndarray]) -> list[float]:
    """IoU of each label from set sizes over the concatenated pixels; NaN for classes without pixels."""
    truth, prediction = (np.concatenate([labels.ravel() for labels in maps]) for maps in (truths, predictions))
    valid = truth != 255
    found = []
    for index in range(CLASSES + 1):
        a, b = truth[valid] == index, prediction[valid] == index
        found.append((a & b).sum() / (a | b).sum() if (a | b).any() else np.nan)
    return found


def test_the_truth_scores_one(truths):
    confusion = scored(truths, truths)
    assert confusion.miou == 1
    assert confusion.coverage == 1


@pytest.mark.slow
def test_eroded_objects(truths):
    eroded = [np.where(ndimage.binary_erosion(t > 0, iterations=3), t, np.uint8(0)) for t in truths]
    eroded = [np.where(e == 255, np.uint8(0), e) for e in eroded]
    confusion = scored(truths, eroded)
    np.testing.assert_allclose(confusion.iou, ious(truths, eroded))
    assert np.nanmin(confusion.precision[1:]) == 1  # erosion adds no false positive
    lost = [((t > 0) & (t < 255) & (e == 0)).sum() for t, e in zip(truths, eroded, strict=True)]
    background = sum((t == 0).sum() for t in truths)
    assert confusion.iou[0] == pytest.approx(background / (background + sum(lost)))


def test_swapped_classes(truths):
    swap = np.arange(256, dtype=np.uint8)
    swap[[HORSE, DOG]] = [DOG, HORSE]
    confusion = scored(truths, [swap[truth] for truth in truths])
    present = np.isin(np.arange(CLASSES + 1), np.concatenate([np.unique(truth) for truth in truths]))
    expected = np.where(present, 1.0, np.nan)
    expected[[HORSE, DOG]] = 0
    np.testing.assert_array_equal(confusion.iou, expected)
    assert confusion.miou == pytest.approx((present.sum() - 2) / present.sum())


@pytest.mark.slow
def test_half_of_every_image_ignored(truths):
    half = [truth.copy() for truth in truths]
    for labels in half:
        labels[:, ::2] = 255
    confusion = scored(truths, half)
    valid = sum((truth != 255).sum() for truth in truths)
    kept = sum((truth[:, 1::2] != 255).sum() for truth in truths)
    assert confusion.coverage == pytest.approx(kept / valid)
    assert confusion.miou_covered == 1
    np.testing.assert_allclose(confusion.iou, confusion.recall)
    np.testing.assert_allclose(confusion.iou, ious(truths, half))


def test_the_sweep_finds_the_separating_threshold(truths):
    sweep = ThresholdSweep.empty(CLASSES)
    for truth in truths:
        classes = tuple(int(index) for index in np.unique(truth) if 0 < index < 255)
        inside = truth == np.array(classes)[:, None, None]
        sweep.add(truth, np.where(inside, np.float32(0.7), np.float32(0.4)), classes)
    assert sweep.oracle() == (1.0, 0.4)
    assert sweep.at(0.69).miou == 1
    everything = np.concatenate([truth[truth != 255] for truth in truths])
    assert sweep.at(0.7).iou[0] == pytest.approx((everything == 0).mean())
    assert np.nanmax(sweep.at(0.7).iou[1:]) == 0
    assert sweep.at(0.39).iou[0] == 0
