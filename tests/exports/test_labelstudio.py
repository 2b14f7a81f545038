"""Label Studio's tasks, decoded by label-studio-sdk's own decoder."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import pseudolabel as pl
from pseudolabel.exports.labelstudio import brush_rle
from tests.exports.conftest import NAMES

brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")


def tasks(folder: Path) -> dict[str, dict]:
    found = [task for file in sorted((folder / "tasks").glob("*.json")) for task in json.loads(file.read_text())]
    return {task["data"]["key"]: task for task in found}


def strokes(task: dict) -> dict[str, np.ndarray]:
    """What the SDK's converter makes of a prediction: a mask, bool (H, W), for each label."""
    (prediction,) = task["predictions"]
    results = [{**result["value"], **result} for result in prediction["result"]]
    layers = brush.decode_from_annotation("mask", results)
    return {name.removeprefix("mask-").removesuffix("-0"): layer > 0 for name, layer in layers.items()}


def test_the_sdk_decodes_the_masks(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls")
    read = tasks(tmp_path / "ls")
    assert read.keys() == drawn.keys()
    for key, labels in drawn.items():
        found = strokes(read[key])
        assert found.keys() == {NAMES[label] for label in np.unique(labels) if label not in (0, 255)}
        for name, mask in found.items():
            np.testing.assert_array_equal(mask, labels == NAMES.index(name))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (300, 400)])
def test_runs_of_every_length_are_decoded(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for mask in (np.ones(shape, bool), np.zeros(shape, bool), rng.random(shape) < 0.5, rng.random(shape) < 0.001):
        values = brush.decode_rle(list(brush_rle(mask))).reshape(*shape, 4)
        np.testing.assert_array_equal(values, np.where(mask, 255, 0)[..., None].repeat(4, 2))


def test_tasks_name_their_image_and_score(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls", split=0.5)
    for task in tasks(tmp_path / "ls").values():
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        assert (tmp_path / parse_qs(address.query)["d"][0]).is_file()  # the document root is the folder above
        assert task["predictions"][0]["score"] == 0.75
    sizes = {
        (result["original_width"], result["original_height"])
        for task in tasks(tmp_path / "ls").values()
        for result in task["predictions"][0]["result"]
    }
    assert sizes == {(56, 40)}


def test_a_renamed_folder_is_named_in_the_tasks_after_a_repeat(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls")
    (tmp_path / "ls").rename(tmp_path / "new")
    pl.export(run, to="labelstudio", folder=tmp_path / "new")
    assert tasks(tmp_path / "new")["ring"]["data"]["image"] == "/data/local-files/?d=new/images/ring.jpg"


def test_an_image_without_classes_has_a_prediction_of_nothing(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls")
    assert tasks(tmp_path / "ls")["nothing"]["predictions"][0]["result"] == []


def test_ignored_pixels_are_a_label_on_request(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls", ignore=255)
    np.testing.assert_array_equal(strokes(tasks(tmp_path / "ls")["ignored"])["ignore"], drawn["ignored"] == 255)
    assert labels(tmp_path / "ls")[-1] == ("ignore", "#e0e0c0")


def labels(folder: Path) -> list[tuple[str, str]]:
    config = ElementTree.parse(folder / "labelling_config.xml")
    return [(label.attrib["value"], label.attrib["background"]) for label in config.iter("Label")]


def test_the_labelling_configuration_has_names_and_colours(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="labelstudio", folder=tmp_path / "ls")
    assert labels(tmp_path / "ls") == [("ring", "#800000"), ("disc", "#008000"), ("Käse, alt", "#808000")]
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="its own packages are not installed")
    parsed = interface.LabelInterface((tmp_path / "ls" / "labelling_config.xml").read_text())
    assert parsed.get_control("mask").to_name == ["image"]
    assert parsed.validate_prediction(tasks(tmp_path / "ls")["ring"]["predictions"][0])
