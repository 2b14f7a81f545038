"""Segmenting single images: every method on the small models, from Python and from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel import Segmenter
from pseudolabel.errors import UserError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.records import IGNORE
from pseudolabel.sources.shapes import Scene, draw_scene
from pseudolabel.stages.segment import find_images, segment_images
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call

SHAPES = ("--config", "shapes")
METHODS = ("diffsegmenter", "elbo", "diffseg", "freesegdiff")


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A square and a star."""
    return draw_scene(np.random.default_rng(0), 128)


@pytest.fixture(scope="module")
def names(scene: Scene) -> list[str]:
    return [load_vocabulary("shapes").names[index] for index in scene.classes]


@pytest.fixture
def photo(tmp_path: Path, scene: Scene) -> Path:
    scene.image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return (found & true).sum() / (found | true).sum()


def test_named_classes_are_found_where_they_are(scene, names):
    result = Segmenter.from_pretrained("shapes")(scene.image, names)
    assert set(result.names.values()) == set(names)
    for label, name in result.names.items():
        true = scene.labels == load_vocabulary("shapes").index(name)
        assert iou(result.labels == label, true) > 0.6


def test_densecrf_sharpens(scene, names):
    maps = [Segmenter.from_pretrained("shapes", sharpen=sharpen)(scene.image, names) for sharpen in (False, True)]
    truth = scene.labels > 0
    assert iou(maps[1].labels > 0, truth) > iou(maps[0].labels > 0, truth)


def test_classes_are_guessed_from_a_vocabulary(scene, names):
    result = Segmenter.from_pretrained("shapes")(scene.image, "shapes")
    assert set(result.names.values()) == set(names)


def test_classes_are_taken_from_a_caption(scene, names):
    result = Segmenter.from_pretrained("shapes")(scene.image, "auto")
    assert set(names) <= set(result.names.values())


def test_regions_need_no_names(scene):
    result = Segmenter.from_pretrained("shapes", method="diffseg")(scene.image)
    assert len(result.names) > 1
    assert all(name == f"region {label}" for label, name in result.names.items())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_mask_picture_and_areas(photo, tmp_path, names, method):
    out = tmp_path / "out"
    done = call("segment", photo, *SHAPES, "--method", method, "--classes", ",".join(names) + ",", "--out", out)
    assert done.status == 0, done.err
    assert "knows only Shapes" in done.err
    labels = np.asarray(Image.open(out / "photo.png"))
    described = json.loads((out / "photo.json").read_text())
    assert labels.shape == (128, 128)
    assert described["method"] == method
    found = {entry["label"]: entry for entry in described["classes"]}
    assert set(found) == set(np.unique(labels).tolist()) - {0, IGNORE}
    assert {entry["name"] for entry in found.values()} <= set(names)
    for label, entry in found.items():
        assert entry["pixels"] == (labels == label).sum()
    assert Image.open(out / "photo.overlay.png").height > 128


@pytest.mark.parametrize("method", METHODS)
def test_a_real_photo_goes_through(voc_sample, tmp_path, method):
    photo = min((voc_sample / "JPEGImages").iterdir())
    done = call("segment", photo, *SHAPES, "--method", method, "--out", tmp_path, "--elbo.samples", 4)
    assert done.status == 0, done.err
    assert Image.open(tmp_path / f"{photo.stem}.png").size == Image.open(photo).size


def test_a_broken_image_does_not_stop_the_others(photo, tmp_path, names):
    (photo.parent / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    done = call("segment", photo.parent, *SHAPES, "--classes", ",".join(names) + ",", "--out", out)
    assert done.status == 3
    assert "broken.jpg" in done.err
    assert (out / "photo.png").exists()
    assert "1 images segmented, 1 not" in done.out


def test_paths_that_give_no_images(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        find_images([str(tmp_path / "absent.jpg")])
    with pytest.raises(UserError, match="no images in"):
        find_images([str(tmp_path)])


def test_two_images_of_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "x.png")
    with pytest.raises(UserError, match="rename one of them"):
        find_images([str(tmp_path / "a" / "x.png"), str(tmp_path / "b" / "x.png")])
    assert set(find_images([str(tmp_path)])) == {"a/x", "b/x"}


def test_a_second_run_leaves_out_what_the_first_has_written(scene, tmp_path, names):
    scene.image.save(tmp_path / "photo.jpg")
    experiment = replace(load_experiment("shapes"), out=str(tmp_path))
    for _ in range(2):
        assert segment_images(experiment, [str(tmp_path)], ",".join(names), sharpen=False).written == 1
    assert set(find_images([str(tmp_path)])) == {"photo"}
    assert {path.name for path in tmp_path.iterdir()} == {"photo.jpg", "photo.png", "photo.overlay.png", "photo.json"}


def test_a_mask_is_not_written_over_its_image(scene, tmp_path, names):
    scene.image.save(tmp_path / "photo.png")
    experiment = replace(load_experiment("shapes"), out=str(tmp_path))
    with pytest.raises(UserError, match=r"photo.png' would be written over it; choose another --out"):
        segment_images(experiment, [str(tmp_path)], ",".join(names), sharpen=False)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "photo.png")), np.asarray(scene.image))
