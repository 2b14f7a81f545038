"""CVAT's "Segmentation mask 1.1", read back by datumaro, on which CVAT's own import is built."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pseudolabel as pl
from pseudolabel.exports.sample import split_of
from tests.exports.conftest import NAMES

PARTS = ("SegmentationClass", "SegmentationObject")


def import_masks(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """What CVAT's import would see: the labels that the masks of an image paint, by key and subset."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    data = datumaro.Dataset.import_from(str(folder), "voc_segmentation")
    names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    found = {}
    for item in data:
        labels = np.zeros((40, 56), np.uint8)
        for annotation in item.annotations:
            name = names[annotation.label]
            assert name != "background"
            label = 255 if name == "ignore" else NAMES.index(name)
            assert not labels[annotation.image.astype(bool)].any()
            labels[annotation.image.astype(bool)] = label
        found[item.id, item.subset] = labels
    assert names[: len(NAMES)] == list(NAMES)
    return found


@pytest.fixture
def unpacked(run: Path, tmp_path: Path) -> Path:
    pl.export(run, to="cvat", folder=tmp_path / "cvat")
    with zipfile.ZipFile(tmp_path / "cvat" / "annotations.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_datumaro_reads_the_archive(unpacked: Path, drawn) -> None:
    found = import_masks(unpacked)
    assert found.keys() == {(key, "default") for key in drawn}
    for key, labels in drawn.items():
        np.testing.assert_array_equal(found[key, "default"], np.where(labels == 255, 0, labels), key)


def test_datumaro_reads_the_folder_with_its_splits(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="cvat", folder=tmp_path / "cvat", split=0.5, ignore=255)
    found = import_masks(tmp_path / "cvat")
    assert found.keys() == {(key, split_of(key, 0.5)) for key in drawn}
    for key, labels in drawn.items():
        np.testing.assert_array_equal(found[key, split_of(key, 0.5)], labels, key)


def test_255_is_no_label_unless_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    colours = {}
    for ignore in (None, 255):
        folder = tmp_path / str(ignore)
        pl.export(run, to="cvat", folder=folder, ignore=ignore)
        lines = (folder / "labelmap.txt").read_text().splitlines()
        colours[ignore] = dict(line.split(":")[:2] for line in lines if not line.startswith("#"))
    declared = {"background": "0,0,0", "ring": "128,0,0", "disc": "0,128,0", "Käse, alt": "128,128,0"}
    assert colours == {None: declared, 255: {**declared, "ignore": "224,224,192"}}


def test_the_archive_holds_what_the_folder_holds(run: Path, unpacked: Path, drawn) -> None:
    inside = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    masks = {f"{part}/{key}.png" for part in PARTS for key in drawn}
    assert inside == {"labelmap.txt", "ImageSets/Segmentation/default.txt", *masks}
    for name in inside:
        assert (unpacked / name).read_bytes() == (unpacked.parent / "cvat" / name).read_bytes()


def test_equal_masks_give_equal_archives(run: Path, unpacked: Path, tmp_path: Path) -> None:
    pl.export(run, to="cvat", folder=tmp_path / "again")
    archives = [(tmp_path / name / "annotations.zip").read_bytes() for name in ("cvat", "again")]
    assert archives[0] == archives[1]


def test_a_task_is_set_up_with_names_and_colours(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="cvat", folder=tmp_path / "cvat")
    labels = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert [(label["name"], label["color"]) for label in labels] == [
        ("ring", "#800000"), ("disc", "#008000"), ("Käse, alt", "#808000")
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a:b", "#1", " ring"])
def test_names_that_the_list_of_labels_cannot_hold(run: Path, tmp_path: Path, name: str) -> None:
    labels = json.loads((run / "masks" / "id2label.json").read_text())
    (run / "masks" / "id2label.json").write_text(json.dumps({**labels, "1": name}))
    with pytest.raises(pl.SettingError, match="CVAT's list of labels takes no colon"):
        pl.export(run, to="cvat", folder=tmp_path / "cvat")
    assert not (tmp_path / "cvat").exists()
