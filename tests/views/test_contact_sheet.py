"""The contact sheet's layout and the content of its panels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.shapes.world import draw_scene
from pseudolabel.views.contact_sheet import ContactRow, contact_sheet
from pseudolabel.views.overlay import fade, heat_overlay, mask_overlay
from pseudolabel.vocabulary import load_vocabulary

SHAPES = load_vocabulary("shapes")
CELL = 96


def row(seed: int) -> ContactRow:
    """A scene at the sheet's scale, with a CAM of two levels and a mask whose right third is ignored."""
    scene = draw_scene(np.random.default_rng(seed), CELL)
    inside = scene.labels == np.array(scene.classes)[:, None, None]
    mask = scene.labels.copy()
    mask[:, 64:] = 255
    scores = np.where(inside, np.float32(0.9), np.float32(0.1))
    return ContactRow(f"scene_{seed}", np.asarray(scene.image), scene.classes, scores, mask, scene.labels)


def drawn(rows: list[ContactRow], out: Path, **options) -> np.ndarray:
    contact_sheet(rows, SHAPES, out, cell=CELL, **options)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def places(sheet: np.ndarray, panel: np.ndarray) -> list[tuple[int, int]]:
    """Top left corners (y, x) where the sheet holds the panel pixel by pixel."""
    height, width = panel.shape[:2]
    starts = np.argwhere((sheet == panel[0, 0]).all(-1)).tolist()
    return [(y, x) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], panel)]


def test_panels_are_in_their_columns(tmp_path):
    rows = [row(seed) for seed in range(5)]
    sheet = drawn(rows, tmp_path / "sheet.png", title="Five scenes")
    corners = []
    for one in rows:
        faded = fade(one.image)
        panels = [
            one.image,
            mask_overlay(faded, one.truth, SHAPES.palette, outline=2),
            heat_overlay(faded, one.scores, SHAPES.palette[list(one.classes)]),
            mask_overlay(faded, one.mask, SHAPES.palette, outline=2),
        ]
        found = [places(sheet, panel) for panel in panels]
        assert [len(each) for each in found] == [1, 1, 1, 1]
        corners.append([each[0] for each in found])
    tops, lefts = np.array(corners).transpose(2, 0, 1)
    assert (tops == tops[:, :1]).all()
    assert (np.diff(lefts, axis=1) >= CELL).all()
    # Two blocks: three rows, and two rows to the right.
    np.testing.assert_array_equal(lefts[:3, 0], lefts[0, 0])
    np.testing.assert_array_equal(tops[3:, 0], tops[:2, 0])
    assert lefts[3, 0] > lefts[0, 3] + CELL
    assert (np.diff(tops[:3, 0]) > CELL).all()


def test_margins_are_white(tmp_path):
    sheet = drawn([row(seed) for seed in range(4)], tmp_path / "sheet.png", title="Four scenes")
    for edge in (sheet[:30], sheet[-30:], sheet[:, :30], sheet[:, -30:]):
        assert (edge == 255).all()


def test_columns_without_content_are_left_out(tmp_path):
    full = [row(seed) for seed in range(6)]
    bare = [replace(one, truth=None, scores=None) for one in full]
    wide, narrow = drawn(full, tmp_path / "full.png"), drawn(bare, tmp_path / "bare.png")
    assert wide.shape[1] - narrow.shape[1] == 2 * 2 * (CELL + 10)  # two blocks, two columns, with their gutters


def test_the_legend_has_the_classes_on_the_sheet(tmp_path):
    scene = row(1)
    sheet = drawn([replace(scene, mask=None)], tmp_path / "one.png")
    bottom = sheet[-80:]
    for index in range(1, 7):
        assert (bottom == SHAPES.palette[index]).all(-1).any() == (index in scene.classes)


def test_portrait_image_and_image_without_classes(tmp_path):
    tall = row(2)
    tall = ContactRow(
        "tall", tall.image[:, :40].copy(), (), np.zeros((0, CELL, 40), np.float32), tall.mask[:, :40].copy()
    )
    sheet = drawn([tall, row(3)], tmp_path / "sheet.png", blocks=1)
    assert len(places(sheet, tall.image)) == 1
    assert len(places(sheet, fade(tall.image))) == 1  # a CAM of no classes


def test_long_names_are_cut_to_the_column(tmp_path):
    one = row(0)
    renamed = replace(one, key="a_very_long_key_" * 20)
    first, second = drawn([one], tmp_path / "a.png"), drawn([renamed], tmp_path / "b.png")
    assert first.shape == second.shape
    changed = np.argwhere((first != second).any(-1))
    assert changed[:, 1].max() < 40 + CELL
    assert len(changed) > 20


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], SHAPES, tmp_path / "sheet.png")


def test_segments_have_a_column_and_no_names(tmp_path):
    """A segment's number is not a class, even beyond the number of classes."""
    rows = [replace(row(seed), scores=None, mask=None, classes=(), truth=None) for seed in range(2)]
    segments = np.zeros((CELL, CELL), np.uint8)
    segments[:, 48:], segments[:, 80:] = 99, 255
    sheet = drawn([replace(one, segments=segments) for one in rows], tmp_path / "sheet.png")
    for one in rows:
        assert len(places(sheet, mask_overlay(fade(one.image), segments, SHAPES.palette, outline=2))) == 1
        assert len(places(sheet, one.image)) == 1
