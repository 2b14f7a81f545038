"""What a method gives, and what is wrong with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.methods.outcome import problem_of
from pseudolabel.records import Kind, LabelMap, Sample, ScoreMaps

SAMPLE = Sample("a", Image.new("RGB", (6, 4)), (1, 2))
MAPS = np.linspace(0, 1, 12).reshape(2, 2, 3).astype(np.float16)
SCORES = ScoreMaps("a", (1, 2), MAPS, (4, 6))
LABELS = np.array([[0, 1, 2, 6, 255, 0]] * 4, np.uint8)
CONFIDENCE = np.full((4, 6), 0.5, np.float32)
MASK = LabelMap("a", LABELS, CONFIDENCE, np.minimum(LABELS, 6))


def changed(array: np.ndarray, value: float) -> np.ndarray:
    """The array with another last value."""
    array = array.copy()
    array.flat[-1] = value
    return array


def test_valid_results() -> None:
    for scores in (
        SCORES,
        replace(SCORES, final=True),
        replace(SCORES, classes=(), maps=np.zeros((0, 1, 1), np.float16)),
    ):
        assert problem_of(scores, SAMPLE, "cams", 6) == ""
    for mask in (MASK, LabelMap("a", LABELS), replace(MASK, confidence=changed(CONFIDENCE, 1.000001))):
        assert problem_of(mask, SAMPLE, "masks", 6) == ""
    assert problem_of(LabelMap("a", changed(LABELS, 200)), SAMPLE, "segments", 6) == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"key": "b"}, "`key` is 'b'; give sample.key, 'a'"),
        ({"size": (6, 4)}, "`size` is (6, 4); give sample.size, (4, 6): height, width"),
        ({"size": np.array([4, 6])}, "`size` is [4 6]; give sample.size"),
        ({"classes": (0, 1)}, "`classes` is (0, 1); give a tuple of different int from 1 to 6, such as sample.classes"),
        ({"classes": (1, 7)}, "`classes` is (1, 7); give a tuple"),
        ({"classes": (1, 1)}, "`classes` is (1, 1); give a tuple"),
        ({"classes": [1, 2]}, "`classes` is [1, 2]; give a tuple"),
        ({"classes": (1, np.int64(2))}, "; give a tuple of different int"),
        ({"classes": (1,)}, "`maps` has the shape (2, 2, 3); give (C, h, w) with a map for each of the 1 classes"),
        ({"maps": MAPS[0]}, "`maps` has the shape (2, 3); give (C, h, w)"),
        ({"maps": MAPS[:, :0]}, "`maps` has the shape (2, 0, 3); give (C, h, w)"),
        ({"maps": MAPS.astype(np.float32)}, "`maps` is float32; give a numpy array, float16 (2, h, w)"),
        ({"maps": torch.tensor(MAPS)}, "`maps` is a Tensor; give a numpy array, float16 (2, h, w)"),
        ({"maps": changed(MAPS, np.nan)}, "`maps` holds NaN; give values in [0, 1]"),
        ({"maps": changed(MAPS, np.inf)}, "`maps` holds infinity; give values in [0, 1]"),
        ({"maps": changed(MAPS, 1.5)}, "`maps` has values from 0 to 1.5; give values in [0, 1]"),
        ({"maps": changed(MAPS, -0.5)}, "`maps` has values from -0.5 to "),
    ],
)
def test_invalid_score_maps(changes: dict[str, Any], problem: str) -> None:
    assert problem in problem_of(replace(SCORES, **changes), SAMPLE, "cams", 6)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"key": ""}, "`key` is ''; give sample.key, 'a'"),
        ({"labels": LABELS.T}, "`labels` has the shape (6, 4); give that of the image, (4, 6): height, width"),
        ({"labels": LABELS.astype(np.int64)}, "`labels` is int64; give a numpy array, uint8 (4, 6)"),
        ({"labels": None}, "`labels` is a NoneType; give a numpy array, uint8 (4, 6)"),
        ({"labels": changed(LABELS, 7)}, "`labels` has the value 7; the last class of the vocabulary is 6"),
        ({"best": changed(LABELS, 9)}, "`best` has the value 9; the last class"),
        ({"best": LABELS[:1]}, "`best` has the shape (1, 6)"),
        ({"confidence": CONFIDENCE.astype(np.float64)}, "`confidence` is float64; give a numpy array, float32 (4, 6)"),
        ({"confidence": CONFIDENCE[:1]}, "`confidence` has the shape (1, 6)"),
        ({"confidence": changed(CONFIDENCE, np.nan)}, "`confidence` holds NaN; give values in [0, 1]"),
        ({"confidence": changed(CONFIDENCE, 1.1)}, "`confidence` has values from 0.5 to 1.1; give values in [0, 1]"),
    ],
)
def test_invalid_label_maps(changes: dict[str, Any], problem: str) -> None:
    assert problem in problem_of(replace(MASK, **changes), SAMPLE, "masks", 6)


@pytest.mark.parametrize(
    ("outcome", "kind", "problem"),
    [
        (MASK, "cams", "a LabelMap; a method that produces cams gives a ScoreMaps"),
        (SCORES, "masks", "a ScoreMaps; a method that produces masks gives a LabelMap"),
        (SCORES, "segments", "a ScoreMaps; a method that produces segments gives a LabelMap"),
        (None, "masks", "a NoneType; a method that produces masks gives a LabelMap"),
        (MAPS, "cams", "a ndarray; a method that produces cams gives a ScoreMaps"),
    ],
)
def test_results_of_another_kind(outcome: Any, kind: Kind, problem: str) -> None:
    assert problem_of(outcome, SAMPLE, kind, 6) == problem
