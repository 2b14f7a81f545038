"""Single-channel masks: the same class indices in every reader."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import pseudolabel as pl
from tests.e2e.commands import samples
from tests.exports.conftest import NAMES, path_of


def read_all(path: Path) -> dict[str, np.ndarray]:
    """The mask as each library reads it without being told anything."""
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    return {
        "numpy of PIL": np.asarray(Image.open(path)),
        "PIL in grey": np.asarray(Image.open(path).convert("L")),
        "cv2": cv2.imread(str(path), cv2.IMREAD_GRAYSCALE),
        "cv2 unchanged": cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED),
    }


def test_every_reader_sees_class_indices(run: Path, tmp_path: Path, drawn) -> None:
    result = pl.export(run, to="png", folder=tmp_path / "png")
    assert (result.samples, result.failed, result.exit_status) == (len(drawn), 0, 0)
    for key, labels in drawn.items():
        for reader, read in read_all(tmp_path / "png" / "masks" / f"{path_of(key)}.png").items():
            np.testing.assert_array_equal(read, labels, reader)


def test_torchvision_sees_them_too(run: Path, tmp_path: Path, drawn) -> None:
    try:
        from torchvision.io import ImageReadMode, decode_image
    except (ImportError, RuntimeError) as error:  # one that was built for another torch
        pytest.skip(f"torchvision cannot be imported here: {error}")
    pl.export(run, to="png", folder=tmp_path / "png")
    for key, labels in drawn.items():
        read = decode_image(str(tmp_path / "png" / "masks" / f"{path_of(key)}.png"), mode=ImageReadMode.UNCHANGED)
        np.testing.assert_array_equal(read[0].numpy(), labels)


def test_images_are_the_shards_own_bytes(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    for key, members in samples(run / "masks").items():
        assert (tmp_path / "png" / "images" / f"{path_of(key)}.jpg").read_bytes() == members["jpg"]


@pytest.mark.parametrize("ignore", [0, 2])
def test_ignored_pixels_become_another_label(run: Path, tmp_path: Path, drawn, ignore: int) -> None:
    pl.export(run, to="png", folder=tmp_path / "png", ignore=ignore)
    read = np.asarray(Image.open(tmp_path / "png" / "masks" / "ignored.png"))
    np.testing.assert_array_equal(read, np.where(drawn["ignored"] == 255, ignore, drawn["ignored"]))
    assert [entry["id"] for entry in json.loads((tmp_path / "png/classes.json").read_text())["classes"]] == [0, 1, 2, 3]


def test_classes_travel_along(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    classes = json.loads((tmp_path / "png" / "classes.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == [*NAMES, "ignore"]
    assert classes[1] == {"id": 1, "name": "ring", "color": [128, 0, 0]}
    assert classes[-1] == {"id": 255, "name": "ignore", "color": [224, 224, 192]}
    data = yaml.safe_load((tmp_path / "png" / "data.yaml").read_text())
    assert data == {"train": "images", "val": "images", "masks_dir": "masks", "names": dict(enumerate(NAMES))}


def test_ultralytics_pairs_and_accepts_every_mask(run: Path, tmp_path: Path, drawn, monkeypatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    try:
        from ultralytics.data import utils
    except ImportError as error:  # it also looks for torchvision
        pytest.skip(f"ultralytics cannot be imported here: {error}")
    result = pl.export(run, to="png", folder=tmp_path / "png", split=0.5)
    data = utils.check_det_dataset(str(tmp_path / "png" / "data.yaml"), autodownload=False)
    assert data["names"] == dict(enumerate(NAMES))
    found = 0
    for split in ("train", "val"):
        images = sorted(str(path) for path in Path(data[split]).rglob("*.jpg"))
        found += len(images)
        masks = utils.img2label_paths(images, label_dir=data["masks_dir"], suffix=".png")
        invalid = np.ones(256, np.uint8)
        invalid[[0, 1, 2, 3, 255]] = 0
        for image, mask in zip(images, masks, strict=True):
            checked = utils.verify_image_mask((image, mask, "", invalid))
            assert (checked[0], checked[-1]) == (image, ""), checked
    assert found == result.samples == len(drawn)
