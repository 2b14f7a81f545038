import math

import numpy as np
import pytest

from pseudolabel.evaluation.per_image import image_miou


def test_the_mean_is_over_the_labels_of_an_image():
    truth = np.array([[0, 0, 0, 0, 2, 2, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 255, 2, 0, 2, 255]], np.uint8)
    # Background: 2 hits, 4 true, 3 predicted; class 2: 1 hit, 2 true, 1 predicted where the truth is not void.
    assert image_miou(truth, prediction) == pytest.approx((2 / 5 + 1 / 2) / 2)
    void_as_background = np.where(truth == 255, np.uint8(0), truth)
    assert image_miou(void_as_background, prediction) == pytest.approx((2 / 7 + 1 / 3) / 2)


def test_equals_a_loop_over_labels():
    rng = np.random.default_rng(0)
    for _ in range(5):
        truth, prediction = (rng.choice(np.array([0, 1, 5, 255], np.uint8), (9, 11)) for _ in range(2))
        ious = []
        for label in (0, 1, 5):
            ours, theirs = (prediction == label) & (truth != 255), truth == label
            ious.append((ours & theirs).sum() / (ours | theirs).sum())
        assert image_miou(truth, prediction) == pytest.approx(np.mean(ious))


@pytest.mark.filterwarnings("error")
def test_an_image_of_void_has_no_score():
    assert math.isnan(image_miou(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)))
