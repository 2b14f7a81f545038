"""COCO's instances, read by pycocotools and by our own source."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

import pseudolabel as pl
from pseudolabel.exports.sample import split_of
from tests.exports.conftest import NAMES


def read(folder: Path, split: str = "") -> tuple[COCO, dict[str, dict]]:
    """The file as pycocotools reads it, and its images by key."""
    coco = COCO(str(folder / "annotations" / f"instances{split}.json"))
    return coco, {image["file_name"].removesuffix(".jpg"): image for image in coco.loadImgs(coco.getImgIds())}


def mask_of(coco: COCO, image: dict) -> np.ndarray:
    """The labels that the instances paint; none may lie on another."""
    labels = np.zeros((image["height"], image["width"]), np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
        instance = coco.annToMask(annotation).astype(bool)
        assert not labels[instance].any()
        assert instance.sum() == annotation["area"]
        labels[instance] = annotation["category_id"]
    return labels


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_gets_the_masks(run: Path, tmp_path: Path, drawn, pieces: bool, polygons: bool) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco", pieces=pieces, polygons=polygons)
    coco, images = read(tmp_path / "coco")
    assert images.keys() == drawn.keys()
    for key, labels in drawn.items():
        np.testing.assert_array_equal(mask_of(coco, images[key]), np.where(labels == 255, 0, labels))
        assert (tmp_path / "coco" / "images" / images[key]["file_name"]).is_file()


def test_instances_are_classes_or_pieces(run: Path, tmp_path: Path) -> None:
    counts = {}
    for pieces in (False, True):
        pl.export(run, to="coco", folder=tmp_path / str(pieces), pieces=pieces)
        coco, images = read(tmp_path / str(pieces))
        counts[pieces] = {key: len(coco.getAnnIds(image["id"])) for key, image in images.items()}
    classes = {
        "ring": 1,
        "folder/two discs": 2,
        "folder/images/épicé 100%": 1,
        "nothing": 0,
        "ignored": 1,
        "touching": 2,
    }
    assert counts[False] == classes
    assert counts[True] == {**classes, "folder/two discs": 3}


def test_holes_are_kept_by_run_lengths_where_polygons_are_wanted(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco", polygons=True)
    coco, images = read(tmp_path / "coco")
    kinds = Counter(
        (key, type(annotation["segmentation"]))
        for key, image in images.items()
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"]))
    )
    assert kinds["ring", dict] == 1
    assert {key for key, kind in kinds if kind is dict} == {"ring"}


def test_a_speck_has_a_box(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco")
    coco, images = read(tmp_path / "coco")
    (speck,) = coco.loadAnns(coco.getAnnIds(images["folder/images/épicé 100%"]["id"]))
    assert (speck["area"], speck["bbox"], speck["iscrowd"]) == (1, [7, 5, 1, 1], 0)


def test_categories_are_the_classes(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco")
    coco, _ = read(tmp_path / "coco")
    assert {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())} == {
        1: "ring", 2: "disc", 3: "Käse, alt"
    }  # fmt: skip
    assert coco.loadCats(2)[0]["color"] == [0, 128, 0]


def test_ignored_pixels_are_a_category_on_request(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco", ignore=255)
    coco, images = read(tmp_path / "coco")
    assert coco.loadCats(255)[0]["name"] == "ignore"
    np.testing.assert_array_equal(mask_of(coco, images["ignored"]), drawn["ignored"])


def test_splits_have_files_and_folders_of_their_own(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco", split=0.5)
    for split in ("train", "val"):
        coco, images = read(tmp_path / "coco", f"_{split}")
        assert images.keys() == {key for key in drawn if split_of(key, 0.5) == split}
        assert all((tmp_path / "coco" / "images" / split / image["file_name"]).is_file() for image in images.values())
        assert len(coco.getCatIds()) == len(NAMES) - 1


def test_our_own_source_takes_its_labels(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco")
    from pseudolabel.config import SourceConfig
    from pseudolabel.sources.source import open_source
    from pseudolabel.vocabulary import vocabulary_of

    labels = str(tmp_path / "coco" / "annotations" / "instances.json")
    config = SourceConfig(kind="folder", path=str(tmp_path / "coco" / "images"), labels=labels)
    found = {entry.key: entry.classes for entry in open_source(config, vocabulary_of(NAMES[1:])).entries}
    assert found["folder/two discs"] == (2, 3)
    assert found["ring"] == (1,)


def test_the_json_says_nothing_twice(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="coco", folder=tmp_path / "coco", pieces=True)
    data = json.loads((tmp_path / "coco" / "annotations" / "instances.json").read_text(encoding="utf-8"))
    assert data.keys() == {"info", "categories", "images", "annotations"}
    assert len({annotation["id"] for annotation in data["annotations"]}) == len(data["annotations"])


def test_supervision_reads_it(run: Path, tmp_path: Path, drawn) -> None:
    try:
        import supervision
    except ImportError as error:
        pytest.skip(f"supervision cannot be imported here: {error}")
    pl.export(run, to="coco", folder=tmp_path / "coco", pieces=True)
    images = tmp_path / "coco" / "images"
    data = supervision.DetectionDataset.from_coco(
        str(images), str(tmp_path / "coco" / "annotations" / "instances.json")
    )
    assert data.classes == list(NAMES[1:])
    assert len(data) == len(drawn)
    for path, _, found in data:
        labels = np.zeros((40, 56), np.uint8)
        for mask, number in zip(found.mask if found.mask is not None else (), found.class_id, strict=True):
            labels[np.asarray(mask).astype(bool)] = number + 1
        expected = drawn[str(Path(path).relative_to(images).with_suffix(""))]
        np.testing.assert_array_equal(labels, np.where(expected == 255, 0, expected))


def test_datumaro_reads_it(run: Path, tmp_path: Path, drawn) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    pl.export(run, to="coco", folder=tmp_path / "coco", split=0.5)
    data = datumaro.Dataset.import_from(str(tmp_path / "coco"), "coco_instances")
    labels = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    assert set(NAMES[1:]) <= set(labels)
    found = {item.id: item for item in data}
    assert found.keys() == drawn.keys()
    for key, expected in drawn.items():
        painted = np.zeros((40, 56), np.uint8)
        for annotation in found[key].annotations:
            if annotation.type != datumaro.AnnotationType.mask:
                continue  # it makes a box of each instance, too
            painted[annotation.image.astype(bool)] = NAMES.index(labels[annotation.label])
        np.testing.assert_array_equal(painted, np.where(expected == 255, 0, expected))
