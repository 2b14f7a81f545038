"""YOLO's text files, read and filled by Ultralytics' own code, and filled by OpenCV."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import pseudolabel as pl
from pseudolabel.exports.sample import split_of
from tests.exports.conftest import NAMES, path_of


def read(path: Path) -> list[tuple[int, np.ndarray]]:
    """Class and points, in shares of width and height, of every line."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(int(row[0]), np.array(row[1:], float).reshape(-1, 2)) for row in rows]


def fill(path: Path, shape: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    for number, points in read(path):
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1
        assert np.ptp(points, axis=0).min() > 0  # else it has a box without an area
        cv2.fillPoly(labels, [(points * shape[::-1]).astype(np.int32)], number + 1)
    return labels


def test_filled_outlines_are_the_masks(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="yolo", folder=tmp_path / "yolo")
    for key, labels in drawn.items():
        filled = fill(tmp_path / "yolo" / "labels" / f"{path_of(key)}.txt", labels.shape)
        np.testing.assert_array_equal(filled, np.where(labels == 255, 0, labels), key)
        assert (tmp_path / "yolo" / "images" / f"{path_of(key)}.jpg").is_file()


def test_an_image_without_classes_has_an_empty_file(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="yolo", folder=tmp_path / "yolo")
    assert (tmp_path / "yolo" / "labels" / "nothing.txt").read_bytes() == b""


def test_classes_count_from_zero_without_background(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="yolo", folder=tmp_path / "yolo", split=0.5)
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES[1:]))}


def test_ignored_pixels_cannot_be_kept(run: Path, tmp_path: Path) -> None:
    with pytest.raises(pl.SettingError, match="`ignore` 255: yolo cannot say that pixels are ignored"):
        pl.export(run, to="yolo", folder=tmp_path / "yolo", ignore=255)
    pl.export(run, to="yolo", folder=tmp_path / "yolo", ignore=1)
    assert {number for number, _ in read(tmp_path / "yolo" / "labels" / "ignored.txt")} == {0, 1}


def test_ultralytics_accepts_every_file_and_fills_the_masks(run: Path, tmp_path: Path, drawn, monkeypatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    try:
        from ultralytics.data import utils
    except ImportError as error:
        pytest.skip(f"ultralytics cannot be imported here: {error}")
    pl.export(run, to="yolo", folder=tmp_path / "yolo", split=0.5)
    data = utils.check_det_dataset(str(tmp_path / "yolo" / "data.yaml"), autodownload=False)
    for key, labels in drawn.items():
        image = str(Path(data[split_of(key, 0.5)]) / f"{path_of(key)}.jpg")
        (text,) = utils.img2label_paths([image])
        _, rows, _, segments, _, missing, found, empty, corrupt, said = utils.verify_image_label(
            (image, text, "", False, len(data["names"]), 0, 0, False)
        )
        assert (missing, found, empty, corrupt, said) == (0, 1, int(key == "nothing"), 0, "")
        filled = np.zeros(labels.shape, np.uint8)
        for row, segment in zip(rows, segments, strict=True):
            points = segment * np.array(labels.shape[::-1])
            filled[utils.polygon2mask(labels.shape, [points.ravel()]).astype(bool)] = row[0] + 1
        np.testing.assert_array_equal(filled, np.where(labels == 255, 0, labels), key)
        with Image.open(image) as picture:
            assert picture.size == labels.shape[::-1]
