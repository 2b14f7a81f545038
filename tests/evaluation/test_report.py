"""Reports as JSON and on a terminal."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.report import Report, SegmentReport, print_report
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


def segmented() -> SegmentReport:
    """Cat is found but for two pixels, which make a segment of their own, and dog is not there."""
    truth = np.repeat(np.array([0, 1], np.uint8), 10).reshape(1, 20)
    segments = truth + np.uint8(1)
    segments[0, -2:] = 9
    counts = Hungarian.empty(2, has_background=True)
    counts.add(truth, segments)
    return SegmentReport.of_segments(counts, NAMES, "val", 1, 3.0, 0.9)


def printed(report: Report | SegmentReport, width: int = 100) -> str:
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
        "accuracy": pytest.approx(11 / 16),
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


def test_names_must_match_the_labels():
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


def test_segments_as_json():
    data = json.loads(json.dumps(segmented().to_dict(), allow_nan=False))
    assert data == {
        "kind": "segments",
        "split": "val",
        "images": 1,
        "segments": 3.0,
        "accuracy": pytest.approx(18 / 20),
        "miou_official": pytest.approx((1 + 8 / 10) / 2),
        "miou_matched": pytest.approx((1 + 8 / 10) / 2),
        "miou_per_image": 0.9,
        "per_class": {
            "background": {"iou_official": 1.0, "iou_matched": 1.0},
            "cat": {"iou_official": 0.8, "iou_matched": 0.8},
            "dog": {"iou_official": 0.0, "iou_matched": None},
        },
    }


def test_prints_segments_with_the_name_of_each_protocol():
    lines = printed(segmented(), 150).splitlines()
    assert lines[0] == "Segments on val, 1 image"
    found = {line.split("  ")[0].strip(): line for line in lines}
    assert "90.00  Hungarian matching per image; unmatched segments are false positives" in found["mIoU, official"]
    assert "90.00  Hungarian matching per image; unmatched segments are no false positives" in found["mIoU, matched"]
    assert "90.00  mean over images" in found["mIoU, per image"]
    assert "3.00  per image" in found["segments"]
    assert found["dog"].split()[:3] == ["dog", "0.00", "-"]


def test_per_image_scores_are_named():
    report = Report.of_masks(counted([[6, 2, 0, 0], [1, 5, 0, 2], [0, 0, 0, 0]]), NAMES, "train", 3, 0.625)
    assert report.to_dict()["miou_per_image"] == 0.625
    assert "62.50  mean over images of their own labels' IoU, void counted as background" in printed(report, 150)
