import numpy as np
import pytest
from pycocotools import mask as coco

from pseudolabel.sources.outlines import rasterise


def plain_runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, starting with the pixels outside."""
    runs, inside = [0], False
    for value in mask.T.ravel():
        if value != inside:
            runs.append(0)
            inside = value
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_as_lists_and_as_text(seed: int) -> None:
    """Both forms of random blots, from no pixel to all of them, against pycocotools' encoder and a plain loop."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 60, 2)
    smooth = generator.random((height, width)).cumsum(0).cumsum(1) % generator.choice([1, 7, 300])
    mask = smooth < generator.random() * smooth.max()
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for counts in (text, plain_runs(mask)):
        found = rasterise({"size": [height, width], "counts": counts}, height, width)
        assert found.dtype == bool
        assert np.array_equal(found, mask)


def test_a_polygon_of_whole_coordinates_is_a_rectangle_of_pixels() -> None:
    found = rasterise([[2, 1, 5, 1, 5, 4, 2, 4]], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    assert np.array_equal(found, expected)


def test_several_polygons_are_one_object() -> None:
    first, second = [0.0, 0.0, 3.0, 0.0, 3.0, 3.0, 0.0, 3.0], [2, 2, 6, 2, 6, 5, 2, 5]
    both = rasterise([first, second], 6, 8)
    assert np.array_equal(both, rasterise([first], 6, 8) | rasterise([second], 6, 8))
    assert np.count_nonzero(both) == 9 + 12 - 1


def test_a_polygon_that_reaches_out_is_cut_off() -> None:
    assert rasterise([[-2, -2, 4, -2, 4, 9, -2, 9]], 6, 8).sum() == 6 * 4


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([], "must be polygons or run lengths"),
        (None, "must be polygons or run lengths"),
        ({"size": [8, 6], "counts": [48]}, "must be polygons or run lengths of size"),
        ({"size": [6, 8]}, "must be polygons or run lengths of size"),
        ([[1, 1, 5, 5]], "at least three pairs"),
        ([[1, 1, 3, 3, 5, 5], [1, 1, 3, 1, 3]], "at least three pairs"),
        ([[1, 1, 3, 1, 3, 1e9]], "far outside"),
        ([[1, 1, 3, 1, 3, float("nan")]], "far outside"),
        ({"size": [6, 8], "counts": [40, 7]}, "add up to 48 pixels"),
        ({"size": [6, 8], "counts": [50, -2]}, "add up to 48 pixels"),
        ({"size": [6, 8], "counts": [24.0, 24.0]}, "add up to 48 pixels"),
        ({"size": [6, 8], "counts": "1"}, "add up to 48 pixels"),
        ({"size": [6, 8], "counts": ""}, "add up to 48 pixels"),
        ({"size": [6, 8], "counts": "=3~"}, "no digit"),
    ],
)
def test_outlines_that_are_invalid(outline: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rasterise(outline, 6, 8)
