"""Outlines, filled again by other programs."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pseudolabel.exports.outlines import connected_pieces, trace, with_holes, without_straight


def random_masks() -> list[np.ndarray]:
    """From single pixels to labyrinths."""
    rng = np.random.default_rng(5)
    return [rng.random((13, 17)) < share for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9) for _ in range(5)]


def drawn_masks(drawn) -> list[np.ndarray]:
    return [labels == label for labels in drawn.values() for label in np.unique(labels)]


def test_corners_enclose_the_mask(drawn) -> None:
    """By the rule of even and odd crossings, to the right of each pixel's centre."""
    for mask in [*random_masks(), *drawn_masks(drawn), np.ones((3, 4), bool)]:
        crossings = np.zeros((mask.shape[0], mask.shape[1] + 1), int)
        for loop in trace(mask):
            for (row, column), (next_row, next_column) in zip(loop.corners, np.roll(loop.corners, -1, 0), strict=True):
                assert (row == next_row) != (column == next_column)
                crossings[min(row, next_row) : max(row, next_row), column] += 1
        np.testing.assert_array_equal(crossings.cumsum(1)[:, :-1] % 2, mask)


def test_holes_are_told(drawn) -> None:
    loops = trace(drawn["ring"] == 1)
    assert sorted(loop.is_hole for loop in loops) == [False, True]
    assert [loop.is_hole for loop in trace(drawn["folder/two discs"] == 2)] == [False, False]
    assert trace(np.zeros((4, 5), bool)) == []


def test_pixels_are_the_border(drawn) -> None:
    for mask in drawn_masks(drawn):
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        found = np.zeros_like(mask)
        for loop in trace(mask):
            found[tuple(loop.pixels.T)] = True
        np.testing.assert_array_equal(found, mask & ~inside)


def test_one_path_with_slits_is_filled_exactly_by_opencv(drawn) -> None:
    for mask in [*random_masks(), *drawn_masks(drawn)]:
        filled = np.zeros(mask.shape, np.uint8)
        for piece in connected_pieces(mask, corners=False):
            loops = trace(piece)
            (outer,) = [loop.pixels for loop in loops if not loop.is_hole]
            path = without_straight(with_holes(outer, [loop.pixels for loop in loops if loop.is_hole]))
            cv2.fillPoly(filled, [path[:, ::-1].astype(np.int32)], 1)
        np.testing.assert_array_equal(filled, mask)


def test_pieces_share_corners_but_not_more(drawn) -> None:
    assert len(connected_pieces(drawn["folder/two discs"] == 2)) == 2
    assert len(connected_pieces(drawn["touching"] == 1)) == 1
    assert len(connected_pieces(drawn["touching"] == 1, corners=False)) == 2
    assert connected_pieces(np.zeros((2, 2), bool)) == []


@pytest.mark.parametrize("key", ["folder/two discs", "folder/images/épicé 100%", "touching"])
def test_pycocotools_fills_corners_exactly(drawn, key: str) -> None:
    for mask in (drawn[key] == label for label in np.unique(drawn[key]) if label):
        polygons = [loop.corners[:, ::-1].ravel().tolist() for loop in trace(mask)]
        encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
        np.testing.assert_array_equal(coco_mask.decode(encoded), mask)
