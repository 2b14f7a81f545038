"""Score maps at image size, against a bilinear enlargement written out by hand."""

import numpy as np
import pytest
import torch

from pseudolabel.score_maps import at_image_size, label_map, winners


def enlarge(one_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear enlargement of float (h, w), pixel centres at half-integers, edges repeated."""
    weights = []
    for old, new in zip(one_map.shape, size, strict=True):
        position = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        weights.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(old))))
    return weights[0] @ one_map @ weights[1].T


@pytest.mark.parametrize("size", [(64, 96), (37, 50), (8, 8), (5, 3)])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_enlarges_then_scales_each_class(size, kind):
    maps = np.random.default_rng(0).uniform(2, 9, (3, 8, 8)).astype(np.float16)
    result = at_image_size(torch.from_numpy(maps) if kind == "torch" else maps, size)
    assert result.dtype == np.float32
    assert result.shape == (3, *size)
    for expected, found in zip((enlarge(m.astype(float), size) for m in maps), result, strict=True):
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_range_is_computed_after_enlarging():
    peak = np.zeros((1, 4, 4), np.float32)
    peak[0, 1, 1] = 1
    result = at_image_size(peak, (2, 2))  # each result pixel averages four, so the peak shrinks to 1/4 before scaling
    np.testing.assert_array_equal(result, [[[1, 0], [0, 0]]])


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (5, 3)])
def test_final_maps_are_enlarged_and_not_scaled(size):
    maps = np.random.default_rng(0).uniform(0.2, 0.6, (3, 8, 8)).astype(np.float16)
    maps[0] = 1
    result = at_image_size(maps, size, final=True)
    assert result.max() == 1  # as a probability; DenseCRF refuses more
    for one_map, found in zip(maps, result, strict=True):
        np.testing.assert_allclose(found, enlarge(one_map.astype(float), size), atol=2e-6)
    np.testing.assert_array_equal(at_image_size(maps, (8, 8), final=True), maps)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 60000.0, 6e-8])
def test_constant_map_becomes_zeros(value):
    maps = np.stack([np.full((7, 9), value, np.float16), np.arange(63, dtype=np.float16).reshape(7, 9)])
    result = at_image_size(maps, (101, 67))
    assert not result[0].any()
    assert (result[1].min(), result[1].max()) == (0, 1)


def test_the_smallest_float16_difference_is_not_constant():
    maps = np.full((1, 4, 4), 1000, np.float16)
    maps[0, 0, 0] = np.nextafter(np.float16(1000), np.float16(2000))
    assert at_image_size(maps, (16, 16)).max() == 1


def test_no_classes():
    result = at_image_size(np.zeros((0, 8, 8), np.float16), (30, 40))
    assert result.shape == (0, 30, 40)
    assert result.dtype == np.float32
    assert not label_map(result, (), 0.0).any()


def test_invalid_maps_are_refused():
    with pytest.raises(ValueError, match="shape"):
        at_image_size(np.zeros((8, 8)), (16, 16))
    with pytest.raises(ValueError, match="finite"):
        at_image_size(np.array([[[0.0, np.nan]]], np.float16), (16, 16))
    with pytest.raises(ValueError, match="2 classes"):
        winners(np.zeros((1, 4, 4), np.float32), (3, 5))


def test_ties_go_to_background_then_to_the_earlier_class():
    scores = np.array([[[0.3, 0.31, 0.9, 0.2]], [[0.3, 0.2, 0.9, 0.29]]], np.float32)
    np.testing.assert_array_equal(label_map(scores, (7, 12), 0.3), [[0, 7, 7, 0]])
    np.testing.assert_array_equal(label_map(scores, (7, 12), 0.25), [[7, 7, 7, 12]])
    assert label_map(scores, (7, 12), 0.3).dtype == np.uint8


def test_winners_gives_class_and_score():
    scores = np.random.default_rng(1).random((3, 5, 6), np.float32)
    winner, score = winners(scores, (2, 9, 254))
    for row, column in np.ndindex(5, 6):
        pixel = scores[:, row, column].tolist()
        assert score[row, column] == max(pixel)
        assert winner[row, column] == (2, 9, 254)[pixel.index(max(pixel))]
