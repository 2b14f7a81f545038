"""What DenseCRF is fed."""

import numpy as np

from pseudolabel.config import CrfConfig
from pseudolabel.crf.image import fed, wrapped


def test_wrapped_image_overflows_as_in_clip_es():
    # Blue 104 - 104.008 is cut to 0, green 0 - 116.669 to -116 = 140, red 255 - 122.675 to 132; red 0 to -122 = 134.
    image = np.array([[[255, 0, 104], [0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(wrapped(image), [[[0, 140, 132], [152, 138, 134]]])
    assert wrapped(image).dtype == np.uint8


def test_the_image_setting_is_applied():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(fed(image, CrfConfig()), image)
    np.testing.assert_array_equal(fed(image, CrfConfig(image="wrapped")), wrapped(image))
