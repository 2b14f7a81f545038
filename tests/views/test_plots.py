"""The data in the plots' figures, and the PNGs they save."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.report import Report
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.world import draw_scene
from pseudolabel.views.plots import ACCENT, SECOND, plot_class_iou, plot_confusion, plot_draws, plot_threshold_curve
from pseudolabel.vocabulary import load_vocabulary

NAMES = load_vocabulary("shapes").names


@pytest.fixture(scope="module")
def report() -> Report:
    """CAMs of four scenes: their masks, reduced to 16 x 16 and enlarged again."""
    sweep = ThresholdSweep.empty(len(NAMES) - 1)
    for seed in range(4):
        scene = draw_scene(np.random.default_rng(seed), 64)
        masks = [Image.fromarray((scene.labels == index).astype(np.uint8) * 255) for index in scene.classes]
        small = np.stack([np.asarray(mask.reduce(4), np.float32) for mask in masks])
        sweep.add(scene.labels, at_image_size(small, (64, 64)), scene.classes)
    return Report.of_cams(sweep, NAMES, "train", 4, 0.3, "val")


def random_confusion(classes: int, ignored: bool = False) -> Confusion:
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes + 1, (100, 200)).astype(np.uint8)
    prediction = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes + 1, truth.shape).astype(np.uint8)
    )
    if ignored:
        prediction[:, :20] = 255
    confusion = Confusion.empty(classes)
    confusion.add(truth, prediction)
    return confusion


def open_png(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    assert image.format == "PNG"
    return image


def test_threshold_curve_marks_both_thresholds(report, tmp_path):
    figure = plot_threshold_curve(report, tmp_path / "curve.png")
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_xdata(), np.arange(101) / 100)
    np.testing.assert_allclose(lines[0].get_ydata(), [100 * miou for miou in report.curve.miou])
    marks = {to_hex(line.get_color()): line.get_xydata().tolist() for line in lines if line.get_marker() != "None"}
    assert marks == {
        ACCENT: [[0.3, 100 * report.fixed.miou]],
        SECOND: [[report.oracle.threshold, 100 * report.oracle.miou]],
    }
    legend = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert "chosen on: val" in legend
    assert f"oracle {report.oracle.threshold:.2f}: {100 * report.oracle.miou:.2f}" in legend
    assert open_png(tmp_path / "curve.png").width > 900


def test_masks_have_no_threshold_curve(tmp_path):
    masks = Report.of_masks(random_confusion(6), NAMES, "train", 1)
    with pytest.raises(ValueError, match="masks has no threshold curve"):
        plot_threshold_curve(masks, tmp_path / "curve.png")


def test_class_iou_has_a_bar_for_each_class(report, tmp_path):
    figure = plot_class_iou(report, tmp_path / "iou.png")
    axes = figure.axes[0]
    ious = [scores.iou for scores in report.per_class.values()]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], 100 * np.nan_to_num(ious))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), 100 * report.miou)
    top, bottom = axes.transData.transform([(0, 0), (0, len(NAMES) - 1)])[:, 1]
    assert top > bottom  # background comes first
    assert open_png(tmp_path / "iou.png").width > 900


def test_class_iou_marks_absent_classes(tmp_path):
    confusion = Confusion.empty(2)
    confusion.add(np.array([[0, 1, 1, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8))
    figure = plot_class_iou(Report.of_masks(confusion, ("background", "cat", "dog"), "x", 1), tmp_path / "iou.png")
    assert [text.get_text() for text in figure.axes[0].texts][:3] == ["50.0", "66.7", "absent"]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 20, 80])
@pytest.mark.parametrize("ignored", [False, True])
def test_confusion_rows_are_shares(classes, ignored, tmp_path):
    confusion = random_confusion(classes, ignored)
    names = ("background", *(f"class {index}" for index in range(1, classes + 1)))
    axes = plot_confusion(confusion, names, tmp_path / "confusion.png").axes[0]
    shares = axes.images[0].get_array()
    counts = confusion.counts if ignored else confusion.counts[:, :-1]
    np.testing.assert_allclose(shares, 100 * counts / counts.sum(1, keepdims=True))
    assert [label.get_text() for label in axes.get_xticklabels()] == [*names, *["ignored"] * ignored]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(names)
    image = open_png(tmp_path / "confusion.png")
    assert 400 < image.width < 4000
    assert 400 < image.height < 4000


@pytest.mark.slow
def test_names_of_81_classes_do_not_overlap(tmp_path):
    names = ("background", *(f"class {index}" for index in range(1, 81)))
    figure = plot_confusion(random_confusion(80), names, tmp_path / "confusion.png")
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    for above, below in pairwise(boxes):
        assert above.y0 >= below.y1 - 1


def test_confusion_row_of_an_absent_class_is_empty(tmp_path):
    confusion = Confusion.empty(1)
    confusion.add(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    shares = plot_confusion(confusion, ("background", "cat"), tmp_path / "confusion.png").axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(shares, np.nan), [[100, 0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="3 names for 2 labels"):
        plot_confusion(confusion, ("a", "b", "c"), tmp_path / "confusion.png")


def test_draws_are_on_a_logarithmic_axis(tmp_path):
    curves = {"softmax": {1: 0.2, 2: 0.4, 4: 0.5, 8: 0.55}, "argmax": {1: 0.1, 2: 0.2, 4: 0.2, 8: 0.25}}
    figure = plot_draws(curves, "3 images", tmp_path / "draws.png")
    axes = figure.axes[0]
    for line, (name, curve) in zip(axes.get_lines(), curves.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(list(curve.values())))
    places = axes.transData.transform([(draws, 0) for draws in (1, 2, 4, 8)])[:, 0]
    np.testing.assert_allclose(np.diff(places), places[1] - places[0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert open_png(tmp_path / "draws.png").width > 900
