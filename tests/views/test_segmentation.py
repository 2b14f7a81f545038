"""Areas, mask and overlay of one segmented image."""

import numpy as np
import pytest
from PIL import Image

from pseudolabel.views.segmentation import Segmentation
from pseudolabel.vocabulary import voc_palette


@pytest.fixture
def result() -> Segmentation:
    labels = np.zeros((30, 40), np.uint8)
    labels[:15, :20] = 2
    labels[20:, 30:] = 7
    labels[:, -1] = 255
    return Segmentation(Image.new("RGB", (40, 30), "white"), labels, {2: "red car", 7: "dog"})


def test_mask_is_a_palette_image_of_the_labels(result):
    assert result.mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(result.mask), result.labels)


def test_areas_are_shares_of_the_image(result):
    assert result.areas == {"red car": 300 / 1200, "dog": 90 / 1200}


def test_to_dict(result):
    assert result.to_dict() == {
        "width": 40,
        "height": 30,
        "classes": [
            {"label": 2, "name": "red car", "pixels": 300, "share": 0.25},
            {"label": 7, "name": "dog", "pixels": 90, "share": 0.075},
        ],
    }


def test_the_overlay_shows_every_class_and_a_legend(result):
    overlay = np.asarray(result.overlay())
    assert overlay.shape[0] > 30
    palette = voc_palette()
    np.testing.assert_allclose(overlay[8, 10], 0.35 * 255 + 0.65 * palette[2], atol=1)
    np.testing.assert_array_equal(overlay[25, 25], [255, 255, 255])
    legend = overlay[30:].reshape(-1, 3)
    for label in (2, 7):
        assert (legend == palette[label]).all(1).any()


def test_an_image_of_background_only():
    result = Segmentation(Image.new("RGB", (20, 10)), np.zeros((10, 20), np.uint8), {})
    assert result.areas == {}
    assert result.overlay().height > 10
