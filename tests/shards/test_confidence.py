"""Statistics of masks, counted by hand on small ones."""

import numpy as np
import pytest

from pseudolabel.records import LabelMap
from pseudolabel.shards.confidence import judge

LABELS = np.array([[0, 0, 0, 0, 0], [0, 3, 0, 255, 0], [0, 0, 3, 0, 0], [0, 0, 0, 0, 3], [0, 0, 0, 0, 0]], np.uint8)
BEST = np.where(LABELS == 255, np.uint8(3), LABELS)


def test_of_background_and_of_each_class():
    confidence = np.full(LABELS.shape, 0.75, np.float32)
    confidence[BEST == 3] = (0.9, 0.5, 1.0, 0.8)
    judged = judge(LabelMap("a", LABELS, confidence, BEST), (3, 7))
    background, third, seventh = judged["scores"]
    assert background == {"class": 0, "confidence": 0.75, "unsure": 0.0, "area": 21, "pieces": 1, "border": True}
    assert third == {
        "class": 3,
        "confidence": pytest.approx(0.8),
        "unsure": 0.25,
        "area": 3,
        "pieces": 2,
        "border": True,
    }
    assert seventh == {"class": 7, "confidence": None, "unsure": 0.0, "area": 0, "pieces": 0, "border": False}
    assert judged["confidence"] == pytest.approx((0.75 + 0.8 + 0) / 3)  # a class without pixels counts as 0


def test_without_ignored_pixels_the_labels_are_the_best():
    judged = judge(LabelMap("a", BEST, np.ones(BEST.shape, np.float32)), (3,))
    assert [row["area"] for row in judged["scores"]] == [21, 4]
    assert judged["confidence"] == 1.0


def test_without_probabilities_there_is_no_confidence():
    judged = judge(LabelMap("a", LABELS), (3,))
    assert judged["confidence"] is None
    assert [row["confidence"] for row in judged["scores"]] == [None, None]
    assert [row["area"] for row in judged["scores"]] == [21, 3]


def test_an_image_without_classes():
    labels = np.zeros((4, 6), np.uint8)
    judged = judge(LabelMap("a", labels, np.ones(labels.shape, np.float32), labels), ())
    assert judged["confidence"] == 1.0
    assert judged["scores"] == [{"class": 0, "confidence": 1.0, "unsure": 0.0, "area": 24, "pieces": 1, "border": True}]
