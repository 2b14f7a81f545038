"""Brush strokes as Label Studio's own encoder and our export write them, and damaged ones."""

import numpy as np
import pytest

from pseudolabel.exports.labelstudio import brush_rle
from pseudolabel.sources.brush_rle import decode_brush_rle

SHAPES = {
    "nothing": np.zeros((5, 7), bool),
    "everything": np.ones((5, 7), bool),
    "one pixel": np.eye(1, 35, 17, dtype=bool).reshape(5, 7),
    "noise": np.random.default_rng(0).random((41, 67)) < 0.5,
    "a ring": np.hypot(*np.mgrid[-60:60, -80:80]).astype(int) // 10 == 4,
}


def theirs(mask: np.ndarray) -> list[int]:
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    painted = np.repeat(mask[..., None].astype(np.uint8) * 255, 4, 2)
    return list(brush.encode_rle(painted.ravel()))


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES.keys())
def test_strokes_of_label_studio(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_brush_rle(theirs(mask), *mask.shape), mask)


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES.keys())
def test_strokes_of_our_export(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_brush_rle(brush_rle(mask), *mask.shape), mask)


def test_damaged_strokes() -> None:
    data = brush_rle(SHAPES["noise"])
    with pytest.raises(ValueError, match="too early"):
        decode_brush_rle(data[:-30], 41, 67)
    with pytest.raises(ValueError, match="2747 pixels"):
        decode_brush_rle(data, 67, 42)
    with pytest.raises(ValueError, match="too early"):
        decode_brush_rle([], 1, 1)
    header = f"{4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits = f"{header}100100{'1' * 8}".ljust(80, "0")  # 5 values of 4
    with pytest.raises(ValueError, match="beyond"):
        decode_brush_rle(int(bits, 2).to_bytes(10, "big"), 1, 1)
