"""Segmenting single images: every method on the small models, from Python and from the command line."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPModel

from pseudolabel import Segmenter
from pseudolabel.config import CrfConfig, Experiment
from pseudolabel.errors import FullDiskError, NotOursError, OutputError, SampleError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.ownership import MANIFEST
from pseudolabel.records import IGNORE
from pseudolabel.shapes.world import Scene, draw_scene
from pseudolabel.stages import segment as segmenting
from pseudolabel.stages.image_like import decode
from pseudolabel.stages.segment import segment_images
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call
from tests.mounts import mounted_tmpfs

pytestmark = pytest.mark.slow

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


def test_given_classes_are_segmented(scene, names):
    result = Segmenter.from_pretrained("shapes")(scene.image, names)
    assert set(result.names.values()) == set(names)
    for label, name in result.names.items():
        true = scene.labels == load_vocabulary("shapes").index(name)
        assert iou(result.labels == label, true) > 0.6


def test_densecrf_refines_masks(scene, names):
    maps = [Segmenter.from_pretrained("shapes", sharpen=sharpen)(scene.image, names) for sharpen in (False, True)]
    truth = scene.labels > 0
    assert iou(maps[1].labels > 0, truth) > iou(maps[0].labels > 0, truth)


def test_classes_are_guessed_from_a_vocabulary(scene, names):
    segment = Segmenter.from_pretrained("shapes")
    assert set(segment(scene.image, "shapes").names.values()) == set(names)
    # One name alone is a class, which is then taken to be in the image.
    assert segment(scene.image, names[0]).names == segment(scene.image, names[:1]).names == {1: names[0]}


def test_classes_are_taken_from_a_caption(scene, names):
    result = Segmenter.from_pretrained("shapes")(scene.image, "auto")
    assert set(names) <= set(result.names.values())


def test_regions_need_no_names(scene):
    result = Segmenter.from_pretrained("shapes", method="diffseg")(scene.image)
    assert len(result.names) > 1
    assert all(name == f"region {label}" for label, name in result.names.items())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_mask_overlay_and_areas(photo, tmp_path, names, method):
    out = tmp_path / "out"
    done = call("segment", photo, *SHAPES, "--method", method, "--classes", ",".join(names) + ",", "--out", out)
    assert done.status == 0, done.err
    assert "is trained on Shapes only" in done.err
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
def test_a_real_photo_is_segmented(voc_sample, tmp_path, method):
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
    assert "1 image segmented, 1 not" in done.out


@pytest.fixture
def images(scene: Scene, tmp_path: Path) -> Path:
    """Three images in two folders, one with dots in its name."""
    for name in ("a/photo.jpg", "b/photo.jpg", "b/frame.0.5.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        scene.image.save(tmp_path / "images" / name)
    return tmp_path / "images"


def configure(out: Path, **changes: object) -> Experiment:
    experiment = replace(open_experiment("shapes"), out=str(out), **changes)
    return replace(experiment, diffsegmenter=replace(experiment.diffsegmenter, timesteps=[50]))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def outputs(*names: str) -> set[str]:
    return {f"{name}{suffix}" for name in names for suffix in (".png", ".overlay.png", ".json")}


def test_masks_are_named_by_path_below_the_folder(images, tmp_path, names):
    outcome = segment_images(configure(tmp_path / "out"), [str(images)], ",".join(names), sharpen=False)
    assert (outcome.written, outcome.failures) == (3, {})
    assert files(tmp_path / "out") - {MANIFEST} == outputs("a/photo", "b/photo", "b/frame.0.5")


def test_a_second_run_skips_finished_images(images, tmp_path, names, monkeypatch):
    experiment, classes = configure(tmp_path / "out"), ",".join(names)
    segment_images(experiment, [str(images)], classes, sharpen=False)
    (tmp_path / "out" / "b" / "photo.overlay.png").unlink()  # as if killed before it
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    other_batches = replace(experiment, work=replace(experiment.work, batch=3))
    again = segment_images(other_batches, [str(images)], classes, sharpen=False)
    assert (again.written, again.done_before) == (1, 2)
    redone = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert redone == {"photo.json"}
    monkeypatch.setattr(segmenting, "Segmenter", None)  # no model is loaded where nothing is left to do
    options = ("--classes", classes, "--out", tmp_path / "out", "--diffsegmenter.timesteps", "[50]")
    done = call("segment", images, *SHAPES, *options)
    assert done.status == 0, done.err
    assert done.last_line == f"0 images segmented, 0 not, 3 left out, done before with these settings -> {tmp_path}/out"


@pytest.mark.parametrize("change", ["classes", "sharpen", "threshold", "image"])
def test_changed_settings_or_images_are_done_again(images, tmp_path, names, change):
    experiment, classes = configure(tmp_path / "out", crf=CrfConfig(iterations=1)), ",".join(names)
    segment_images(experiment, [str(images / "a")], classes, sharpen=False)
    if change == "image":
        Image.new("RGB", (64, 64), "red").save(images / "a" / "photo.jpg")
    if change == "threshold":
        experiment = replace(experiment, evaluate=replace(experiment.evaluate, threshold=0.9))
    again = segment_images(
        experiment, [str(images / "a")], classes + ",heart" * (change == "classes"), change == "sharpen"
    )
    assert (again.written, again.done_before) == (1, 0)


def test_outputs_of_earlier_runs_are_not_inputs(scene, tmp_path, names):
    scene.image.save(tmp_path / "photo.jpg")
    for out in (tmp_path, tmp_path / "masks"):
        outcome = segment_images(configure(out), [str(tmp_path)], ",".join(names), sharpen=False)
        assert outcome.written == 1
    assert outcome.left_out.reasons["written by pseudolabel"] == 2
    third = segment_images(configure(tmp_path / "third"), [str(tmp_path)], ",".join(names), sharpen=False)
    assert (third.written, third.left_out.reasons["written by pseudolabel"]) == (1, 4)


@pytest.mark.parametrize("name", ["photo.json", "photo.png", "photo.overlay.png"])
def test_a_users_file_is_not_overwritten(scene, tmp_path, names, name):
    """A LabelMe annotation, ground truth, or the image itself; no model is loaded."""
    scene.image.save(tmp_path / ("photo.jpg" if name != "photo.png" else name))
    if name != "photo.png":
        (tmp_path / name).write_bytes(b'{"shapes": []}')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = ("--classes", ",".join(names), "--out", tmp_path, "--model.name", "/nowhere")
    done = call("segment", tmp_path / "photo.jpg" if name != "photo.png" else tmp_path, *SHAPES, *options)
    assert done.is_clean_error()
    assert f"did not write, or that changed since, and would overwrite: '{name}'" in done.err
    assert "choose another --out" in done.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_mask_corrected_by_hand_is_not_overwritten(images, tmp_path, names):
    experiment = configure(tmp_path / "out")
    segment_images(experiment, [str(images)], ",".join(names), sharpen=False)
    (tmp_path / "out" / "a" / "photo.png").write_bytes(b"corrected")
    again = segment_images(experiment, [str(images)], ",".join(names), sharpen=False)
    assert (again.written, again.done_before) == (0, 3)
    with pytest.raises(NotOursError, match=r"'a/photo.png'"):
        segment_images(experiment, [str(images)], ",".join(names) + ",heart", sharpen=False)
    assert (tmp_path / "out" / "a" / "photo.png").read_bytes() == b"corrected"


def test_invalid_names_are_failures_of_their_images(scene, tmp_path, names):
    scene.image.save(tmp_path / "good.jpg")
    long = "星" * 82 + ".jpg"  # 250 bytes, and 258 as .overlay.png
    for odd in (os.fsencode(long), b"caf\xe9.jpg", b"good.png", b"new\nline.jpg"):
        shutil.copy(tmp_path / "good.jpg", os.fsencode(tmp_path) + b"/" + odd)
    done = call("segment", tmp_path, *SHAPES, "--classes", ",".join(names), "--out", tmp_path / "out")
    assert done.status == 3
    assert "2 images segmented, 3 not" in done.last_line
    lines = [line for line in done.err.splitlines() if line.startswith("not segmented")]
    assert [line.count("rename") or line.count("too long") for line in lines] == [1, 1, 1]
    for part in ("258 bytes of at most 255", "caf\\xe9.jpg': its name is not UTF-8", "as 'good.png', like"):
        assert sum(part in line for line in lines) == 1
    assert files(tmp_path / "out") - {MANIFEST} == outputs("good", "new\nline")


def test_paths_without_images(tmp_path):
    done = call("segment", tmp_path / "absent.jpg", *SHAPES, "--out", tmp_path / "out")
    assert done.is_clean_error()
    assert "no file or folder" in done.err
    (tmp_path / "notes.txt").write_text("no image")
    done = call("segment", tmp_path, *SHAPES, "--out", tmp_path / "out")
    assert done.is_clean_error()
    assert f"no images in '{tmp_path}'; 1 file left out: 1 .txt" in done.err
    assert not (tmp_path / "out").exists()


def test_home_is_expanded(scene, tmp_path, names, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    scene.image.save(tmp_path / "photo.jpg")
    done = call("segment", "~/photo.jpg", *SHAPES, "--classes", ",".join(names), "--out", "~/out")
    assert done.status == 0, done.err
    assert (tmp_path / "out" / "photo.png").exists()


def test_an_output_folder_that_is_a_file(photo, tmp_path, names):
    done = call("segment", photo, *SHAPES, "--classes", ",".join(names), "--out", photo, "--model.name", "/nowhere")
    assert done.is_clean_error()
    assert "is a file, or below a file; choose another --out" in done.err


def test_a_read_only_output_folder(photo, tmp_path, names):
    with mounted_tmpfs(tmp_path / "out", "ro"), pytest.raises(OutputError, match="cannot be written"):
        segment_images(configure(tmp_path / "out"), [str(photo)], ",".join(names), sharpen=False)


def test_a_full_disk_gets_a_hint_to_resume(images, tmp_path, names, caplog):
    caplog.set_level("INFO", logger="pseudolabel")
    with mounted_tmpfs(tmp_path / "out", "size=40k"):
        with pytest.raises(FullDiskError, match=r"no space left in .* it continues where it stopped"):
            segment_images(configure(tmp_path / "out"), [str(images)], ",".join(names), sharpen=False)
        written = len(list((tmp_path / "out").rglob("*.json")))
        assert f"{written} image" in caplog.text


def rotated(image: Image.Image) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for viewing
    buffer = io.BytesIO()
    image.crop((0, 0, 128, 96)).save(buffer, "JPEG", exif=exif.tobytes())
    return Image.open(buffer)


@pytest.mark.parametrize("kind", ["exif", "transparent"])
def test_command_and_python_give_equal_masks(scene, tmp_path, names, kind):
    path = tmp_path / f"some photo.{'jpg' if kind == 'exif' else 'png'}"
    if kind == "exif":
        path.write_bytes(rotated(scene.image).fp.getvalue())
    else:
        image = scene.image.copy()
        image.putalpha(Image.fromarray((scene.labels > 0).astype(np.uint8) * 255))
        image.save(path)
    experiment = configure(tmp_path / "out")
    segment_images(experiment, [str(path)], ",".join(names), sharpen=False)
    expected = np.asarray(Image.open(tmp_path / "out" / "some photo.png"))
    assert expected.shape == ((128, 96) if kind == "exif" else (128, 128))
    np.testing.assert_array_equal(Segmenter(experiment)(Image.open(path), names).labels, expected)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16", "1"])
def test_paths_bytes_and_images_are_decoded_equally(scene, tmp_path, mode):
    path = tmp_path / f"photo.{'jpg' if mode == 'CMYK' else 'png'}"
    if mode == "I;16":
        Image.fromarray(np.asarray(scene.image.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        scene.image.convert(mode).save(path)
    found = [decode(image, "photo", 10**6) for image in (path, str(path), path.read_bytes(), Image.open(path))]
    assert {image.mode for image in found} == {"RGB"}
    assert len({image.tobytes() for image in found}) == 1
    grey = np.asarray(scene.image.convert("L"))
    if mode in ("L", "LA", "I;16"):
        np.testing.assert_array_equal(np.asarray(found[0])[..., 0], grey)


def test_transparency_becomes_white(scene, names):
    image = scene.image.copy()
    image.putalpha(0)
    assert np.asarray(Segmenter.from_pretrained("shapes")(image, names).image).min() == 255


def test_unreadable_inputs_are_named(tmp_path):
    segment = Segmenter.from_pretrained("shapes")
    with pytest.raises(SampleError, match=r"no file '.*absent.jpg'"):
        segment(tmp_path / "absent.jpg", ["star"])
    with pytest.raises(SampleError, match="not an image"):
        segment(b"no image", ["star"])


def test_guessed_classes_share_clip(images, tmp_path, monkeypatch):
    """Each batch with guessed classes has a vocabulary of its own, but the models are those of the first."""
    loaded: list[str] = []
    from_pretrained = CLIPModel.from_pretrained

    def load(folder: str, **options: object) -> CLIPModel:
        loaded.append(folder)
        return from_pretrained(folder, **options)

    monkeypatch.setattr(CLIPModel, "from_pretrained", load)
    experiment = replace(open_experiment("shapes"), method="freesegdiff")
    segment = Segmenter(experiment)
    for classes in (["star"], ["square", "heart"], "shapes", ["star"]):
        segment(images / "a" / "photo.jpg", classes)
    assert len(loaded) == 1
    assert experiment.filter.clip == experiment.freesegdiff.clip == "shapes"


@pytest.mark.parametrize("method", ["diffsegmenter", "freesegdiff"])
def test_a_crf_failure_affects_one_image(images, tmp_path, names, method):
    """The kernel is so narrow that the lattice of the longest image cannot be numbered."""
    Image.open(images / "a" / "photo.jpg").resize((3000, 40)).save(images / "c.jpg")
    crf = CrfConfig(iterations=1, bilateral_sxy=0.03, engine="torch")
    experiment = configure(tmp_path / "out", method=method, crf=crf)
    experiment = replace(experiment, freesegdiff=replace(experiment.freesegdiff, crf=crf))
    outcome = segment_images(experiment, [str(images)], ",".join(names), sharpen=True)
    assert outcome.written == 3
    (message,) = outcome.failures.values()
    assert f"'{images}/c.jpg': DenseCRF cannot take this image on cpu: " in message
    assert message.endswith("crf.engine` pydensecrf may")
    with pytest.raises(SampleError, match="DenseCRF cannot take this image"):
        Segmenter(experiment, sharpen=True)(images / "c.jpg", names)


def test_another_image_of_the_same_name_is_a_failure(scene, tmp_path, names):
    for folder, image in (("a", scene.image), ("b", scene.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "1.bmp")
        os.utime(tmp_path / folder / "1.bmp", (0, 0))  # as archives with fixed dates have it
    segment_images(configure(tmp_path / "out"), [str(tmp_path / "a")], ",".join(names), sharpen=False)
    mask = (tmp_path / "out/1.png").read_bytes()
    other = segment_images(configure(tmp_path / "out"), [str(tmp_path / "b")], ",".join(names), sharpen=False)
    assert (other.written, other.done_before) == (0, 0)
    assert "is the mask of" in other.failures[str(tmp_path / "b/1.bmp")]
    assert (tmp_path / "out/1.png").read_bytes() == mask


def test_arrays_are_images_and_other_types_are_refused(scene, names):
    segmenter = Segmenter.from_pretrained("shapes")
    given = segmenter(np.asarray(scene.image), names)
    assert np.array_equal(np.asarray(given.mask), np.asarray(segmenter(scene.image, names).mask))
    with pytest.raises(SampleError, match=r"an array float64 \(4, 4\); give uint8"):
        segmenter(np.zeros((4, 4)), names)
    with pytest.raises(SampleError, match="a dict; give a PIL image, an array, a path or bytes"):
        segmenter({}, names)
    with pytest.raises(ValueError, match="no class is given"):
        segmenter(scene.image, [])


@pytest.mark.parametrize("method", ["diffseg", "freesegdiff"])
def test_images_of_one_batch_keep_their_masks(tmp_path, names, method):
    (tmp_path / "images").mkdir()
    for seed in range(3):
        image = draw_scene(np.random.default_rng(seed), 128).image.resize((128, 96 + 8 * seed))
        image.save(tmp_path / "images" / f"{seed}.png")
    experiment = configure(tmp_path / "out", method=method)
    assert segment_images(experiment, [str(tmp_path / "images")], ",".join(names), sharpen=False).written == 3
    segment = Segmenter(experiment)
    for seed in range(3):
        alone = segment(tmp_path / "images" / f"{seed}.png", names).labels
        together = np.asarray(Image.open(tmp_path / "out" / f"{seed}.png"))
        assert (alone != together).mean() < 0.01
