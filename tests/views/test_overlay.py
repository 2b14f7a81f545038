"""Pixel values of overlays, and the content of legends."""

import numpy as np
import pytest

from pseudolabel.shapes.world import draw_scene
from pseudolabel.views.overlay import fade, hatching, heat_overlay, legend, mask_overlay
from pseudolabel.vocabulary import voc_palette


@pytest.fixture
def image() -> np.ndarray:
    return np.asarray(draw_scene(np.random.default_rng(5), 40).image)


def test_classes_are_blended_and_outlined(image):
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 3
    painted = mask_overlay(image, labels, voc_palette(), alpha=0.5, outline=2)
    colour = voc_palette()[3]
    inner = np.zeros((40, 40), bool)
    inner[12:28, 12:28] = True
    np.testing.assert_array_equal(painted[labels == 0], image[labels == 0])
    assert (painted[(labels == 3) & ~inner] == colour).all()
    expected = (image[inner].astype(float) + colour) / 2
    np.testing.assert_allclose(painted[inner], expected, atol=0.5)


def test_the_image_edge_has_no_outline(image):
    labels = np.full((40, 40), 7, np.uint8)
    outlined = mask_overlay(image, labels, voc_palette(), outline=3)
    np.testing.assert_array_equal(outlined, mask_overlay(image, labels, voc_palette(), outline=0))


def test_adjacent_classes_are_outlined_on_both_sides(image):
    labels = np.full((40, 40), 1, np.uint8)
    labels[:, 20:] = 2
    painted = mask_overlay(image, labels, voc_palette(), alpha=0.3, outline=1)
    assert (painted[:, 19] == voc_palette()[1]).all()
    assert (painted[:, 20] == voc_palette()[2]).all()
    assert (painted[:, 18] != voc_palette()[1]).any()


def test_only_ignored_pixels_are_hatched(image):
    labels = np.zeros((40, 40), np.uint8)
    labels[20:] = 255
    painted = mask_overlay(image, labels, voc_palette())
    expected = image + 0.8 * (hatching((40, 40)) - image)
    np.testing.assert_allclose(painted[20:], expected[20:], atol=0.51)
    np.testing.assert_array_equal(painted[:20], image[:20])
    assert len(np.unique(hatching((8, 8)).reshape(-1, 3), axis=0)) == 2


def test_heat_overlay_opacity_follows_the_largest_score(image):
    scores = np.zeros((2, 40, 40), np.float32)
    scores[0, :20] = 0.5
    scores[1, 10:30] = 0.8
    colours = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
    painted = heat_overlay(image, scores, colours).astype(float)
    np.testing.assert_array_equal(painted[30:], image[30:])
    np.testing.assert_allclose(painted[:10], image[:10] + 0.475 * (colours[0] - image[:10].astype(float)), atol=0.51)
    np.testing.assert_allclose(
        painted[10:30], image[10:30] + 0.76 * (colours[1] - image[10:30].astype(float)), atol=0.51
    )


def test_heat_overlay_without_classes_is_the_image(image):
    painted = heat_overlay(image, np.zeros((0, 40, 40), np.float32), np.zeros((0, 3), np.uint8))
    np.testing.assert_array_equal(painted, image)


def test_faded_images_are_light_grey():
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    # Red's luma is 76.2, which is 178.8 short of white.
    expected = [[255, 127.5, 255 - 0.5 * 178.755]]
    np.testing.assert_allclose(fade(colours, 0.5), np.repeat(np.array(expected)[..., None], 3, 2), atol=0.51)


def test_a_narrow_legend_has_more_lines():
    entries = [(f"class {index}", voc_palette()[index]) for index in range(1, 21)]
    wide, narrow = legend(entries, 2400), legend(entries, 300)
    assert (wide.width, narrow.width) == (2400, 300)
    assert narrow.height >= 5 * wide.height
    for drawn in (wide, narrow):
        seen = {tuple(colour) for colour in np.unique(np.asarray(drawn).reshape(-1, 3), axis=0).tolist()}
        assert {tuple(colour.tolist()) for _, colour in entries} <= seen


def test_sizes_that_differ_are_refused(image):
    with pytest.raises(ValueError, match="do not fit"):
        mask_overlay(image, np.zeros((40, 41), np.uint8), voc_palette())
    with pytest.raises(ValueError, match="do not fit"):
        heat_overlay(image, np.zeros((2, 40, 40), np.float32), np.zeros((1, 3), np.uint8))
