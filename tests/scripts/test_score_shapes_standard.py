"""Held-out scores of the model for standard scenes: rows, gains, and that labels are counted image by image."""

import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.shapes.dataset import write_shapes
from scripts import score_shapes_standard as scores
from scripts.score_shapes_standard import CHOSEN, CROSS, MASKS, PASS, Row, count, scene, summarise


def row(hits: int, images: int = 5) -> Row:
    """Images of 100 pixels of background and 100 of a class, of which `hits` are found."""
    counts = np.zeros((images, 7, 8), np.int64)
    counts[:, 0, 0], counts[:, 1, 1], counts[:, 1, 0] = 100, hits, 100 - hits
    return Row(counts)


def test_gains_are_those_of_the_rows() -> None:
    report = summarise({CROSS: row(40), PASS: row(60), CHOSEN: row(80), MASKS: row(100)})
    mious = {one["row"]: one["miou"] for one in report["rows"]}
    assert mious[MASKS] == 1
    assert mious[CROSS] == pytest.approx((100 / 160 + 40 / 100) / 2)
    for gain in report["gains"]:
        assert gain["gain"] == pytest.approx(mious[gain["to"]] - mious[gain["from"]])
        assert gain["interval"] == pytest.approx((gain["gain"], gain["gain"]))  # all images are alike


def test_held_out_scenes_are_those_of_the_command(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=0, val=2, seed=scores.HELD_OUT_SEED, difficulty="standard")
    labels = json.loads((tmp_path / "image_labels.json").read_text())
    for number in (1, 2):
        names = [scores.VOCABULARY.names[index] for index in scene(scores.HELD_OUT_SEED, 1, number).classes]
        assert labels[f"val_{number:06d}"] == names


def test_every_image_is_counted_by_itself() -> None:
    scenes = [scene(3, number) for number in range(3)]
    counts = count(scenes, [one.labels for one in scenes])
    assert counts.shape == (3, 7, 8)
    for one, own in zip(scenes, counts, strict=True):
        assert own.sum() == one.labels.size
        assert np.trace(own[:, :7]) == one.labels.size
