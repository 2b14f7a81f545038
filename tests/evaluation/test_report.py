"""Reports as JSON and on a terminal."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.report import Report, print_report
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep

NAMES = ("background", "cat", "dog")


def counted(counts: list[list[int]]) -> Confusion:
    return Confusion(np.array(counts, np.int64))


def swept() -> ThresholdSweep:
    """Half of the image is cat; the cat's scores are .6 inside, and .5 outside where the CAM leaks."""
    truth = np.repeat(np.array([0, 1], np.uint8), 50).reshape(1, 100)
    scores = np.full((1, 1, 100), 0.6, np.float32)
    scores[0, 0, :20] = 0.5
    scores[0, 0, 20:50] = 0.1
    sweep = ThresholdSweep.empty(2)
    sweep.add(truth, scores, (1,))
    return sweep


def printed(report: Report, width: int = 100) -> str:
    stream = StringIO()
    print_report(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_masks_as_json():
    report = Report.of_masks(counted([[6, 2, 0, 0], [1, 5, 0, 2], [0, 0, 0, 0]]), NAMES, "train", 3)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data == {
        "kind": "masks",
        "split": "train",
        "images": 3,
        "miou": pytest.approx((6 / 9 + 5 / 10) / 2),
        "miou_covered": pytest.approx((6 / 9 + 5 / 8) / 2),
        "coverage": pytest.approx(14 / 16),
        "per_class": {
            "background": {"iou": pytest.approx(6 / 9), "precision": pytest.approx(6 / 7), "recall": 0.75},
            "cat": {"iou": 0.5, "precision": pytest.approx(5 / 7), "recall": pytest.approx(5 / 8)},
            "dog": {"iou": None, "precision": None, "recall": None},
        },
    }


def test_cams_as_json():
    report = Report.of_cams(swept(), NAMES, "val", 1, 0.45, "train")
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    at_fixed = (30 / 50 + 50 / 70) / 2
    assert data["oracle"] == {"miou": 1.0, "threshold": 0.5}
    assert data["fixed"] == {"miou": pytest.approx(at_fixed), "threshold": 0.45, "chosen_on": "train"}
    assert data["miou"] == pytest.approx(at_fixed)
    assert data["per_class"]["cat"]["iou"] == pytest.approx(50 / 70)
    assert data["curve"]["thresholds"] == [step / 100 for step in range(101)]
    assert data["curve"]["miou"][45] == pytest.approx(at_fixed)
    assert data["curve"]["miou"][55] == 1
    assert data["coverage"] == 1


def test_names_must_fit():
    with pytest.raises(ValueError, match="zip"):
        Report.of_masks(counted([[1, 0, 0], [0, 1, 0]]), NAMES, "train", 1)


def test_prints_masks():
    report = Report.of_masks(counted([[6, 2, 0, 0], [1, 5, 0, 2], [0, 0, 0, 0]]), NAMES, "train", 1464)
    lines = printed(report).splitlines()
    assert lines[0] == "Pseudo-masks on train, 1,464 images"
    found = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert "58.33" in found["mIoU"]
    assert "64.58" in found["mIoU, covered pixels"]
    assert "87.50" in found["coverage"]
    assert found["cat"][1:4] == ["50.00", "71.43", "62.50"]
    assert found["dog"] == ["dog", "-", "-", "-"]


def test_prints_cams_with_the_origin_of_each_threshold():
    text = printed(Report.of_cams(swept(), NAMES, "val", 1, 0.45, "VOC [train]"), 120)
    assert "65.71  threshold 0.45, chosen on: VOC [train]" in text
    assert "100.00  threshold 0.50, chosen on: the scored images themselves" in text
