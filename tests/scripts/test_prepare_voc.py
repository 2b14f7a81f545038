"""Preparing VOC and SBD from archives in their official layouts, also through kills."""

import io
import json
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import UserError
from pseudolabel.sources.source import open_source
from pseudolabel.vocabulary import load_vocabulary, voc_palette
from scripts import prepare_voc
from scripts.prepare_voc import OFFICIAL, Release, combine_lists, labels_of, main, unpack
from tests.scripts.archives import (
    REPOSITORY,
    TEST,
    TRAIN,
    TRAIN_AUG,
    VAL,
    describe,
    draw_labels,
    jpeg,
    lines,
    mask,
    png,
    run_script,
    tree,
    voc_contents,
    write_tar,
)

# The result


def test_needed_files_are_in_vocs_layout(prepared):
    voc = prepared[0] / "VOCdevkit" / "VOC2012"
    expected = {f"JPEGImages/{name}.jpg": jpeg(name) for name in [*TRAIN_AUG, *VAL, *TEST]}
    assert {name: data for name, data in tree(voc).items() if name.startswith("JPEG")} == expected
    names = {path.rpartition("/")[0]: set() for path in tree(voc)}
    for path in tree(voc):
        names[path.rpartition("/")[0]].add(path.rpartition("/")[2])
    assert names.pop("") == {"image_labels.json"}
    assert names.pop("JPEGImages")
    assert names.pop("Annotations") == {f"{name}.xml" for name in [*TRAIN_AUG, *VAL]}
    assert names.pop("SegmentationClass") == {f"{name}.png" for name in [*TRAIN, *VAL]}
    assert names.pop("SegmentationClassAug") == {f"{name}.png" for name in [*TRAIN_AUG, *VAL]}
    assert names.pop("ImageSets/Segmentation") == {
        f"{split}.txt" for split in ("train", "val", "trainval", "train_aug", "test")
    }
    assert not names
    assert [path.name for path in prepared[0].rglob("*") if "unfinished" in path.name or path.suffix == ".part"] == []


def test_train_aug_is_sorted_and_free_of_val(prepared):
    path = prepared[0] / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt"
    assert path.read_bytes() == lines(TRAIN_AUG)


def test_masks_keep_their_values_and_vocs_have_priority(prepared):
    folder = prepared[0] / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    for name in [*TRAIN_AUG, *VAL]:
        is_vocs = name in TRAIN + VAL
        expected = draw_labels(name, 0 if is_vocs else 1, border=is_vocs)
        np.testing.assert_array_equal(mask(folder / f"{name}.png"), expected)
        image = Image.open(folder / f"{name}.png")
        assert image.mode == "P"
        assert image.getpalette() == voc_palette().ravel().tolist()
        assert (expected == 255).any() == is_vocs


def test_labels_are_the_names_of_the_masks_classes(prepared):
    voc = prepared[0] / "VOCdevkit" / "VOC2012"
    labels = json.loads((voc / "image_labels.json").read_text())
    assert list(labels) == sorted([*TRAIN_AUG, *VAL])
    names = load_vocabulary("voc").names
    for name, found in labels.items():
        values = set(np.unique(mask(voc / "SegmentationClassAug" / f"{name}.png"))) - {0, 255}
        assert found == [names[value] for value in values]
        assert len(found) == 1


def test_the_output_has_counts_and_the_next_step(prepared):
    out, printed = prepared
    for line in ("train: 3 images", "val: 2 images", "train_aug: 7 images", "test: 2 images"):
        assert line in printed
    voc = out / "VOCdevkit" / "VOC2012"
    assert f"--config voc12_train --source.path {voc}" in printed
    assert f"--config voc12_train_aug --source.path {voc} --source.labels {voc / 'image_labels.json'}" in printed


def test_the_shipped_experiment_reads_the_data(prepared, monkeypatch):
    monkeypatch.chdir(prepared[0])
    settings = yaml.safe_load((REPOSITORY / "configs" / "pipeline" / "voc12_train_aug.yaml").read_text())
    source = open_source(SourceConfig(**settings["source"]), load_vocabulary(settings["vocabulary"]))
    assert [entry.key for entry in source.entries] == TRAIN_AUG
    for entry in source.entries:
        assert entry.problem is None
        values = set(np.unique(source.ground_truth(entry).labels).tolist()) - {0, 255}
        assert set(entry.classes) == values


def test_real_masks_give_the_published_labels(voc_sample):
    lists = voc_sample.parent / "voc12_lists"
    if not lists.is_dir():
        pytest.skip(f"no lists of VOC 2012 in {lists}")
    expected = json.loads((lists / "image_labels.json").read_text())
    names = load_vocabulary("voc").names[1:]
    for path in sorted((voc_sample / "SegmentationClass").glob("*.png")):
        assert labels_of(path) == [names[index] for index in expected[path.stem]], path.stem


def test_real_lists_combine_to_the_real_train_aug(voc_sample):
    lists = voc_sample.parent / "voc12_lists"
    if not lists.is_dir():
        pytest.skip(f"no lists of VOC 2012 in {lists}")
    train, val, train_aug = ((lists / f"{name}.txt").read_text().split() for name in ("train", "val", "train_aug"))
    rest = sorted(set(train_aug) - set(train))
    sbd = [*rest, *train[::3], *val[::2]]  # SBD has images of both of VOC's lists, too
    np.random.default_rng(0).shuffle(sbd)
    assert combine_lists(train, val, sbd) == train_aug
    assert len(train_aug) == OFFICIAL.counts["train_aug"]
    assert (len(train), len(val)) == (OFFICIAL.counts["train"], OFFICIAL.counts["val"])


# Restarts


def test_a_second_run_changes_nothing(prepared, data):
    times = {path: path.stat().st_mtime_ns for path in prepared[0].rglob("*.[pj]*g")}
    before = tree(prepared[0])
    assert run_script(data.release, "--out", prepared[0], *data.options).returncode == 0
    assert tree(prepared[0]) == before
    assert {path: path.stat().st_mtime_ns for path in prepared[0].rglob("*.[pj]*g")} == times


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_files(prepared, data, tmp_path):
    renames = int(run_script(data.release, "--out", tmp_path / "count", *data.options).stdout.split()[-1])
    assert renames >= 40
    for kill in (1, 5, 11, 14, 19, 25, renames - 3, renames):
        out = tmp_path / str(kill)
        killed = run_script(data.release, "--out", out, *data.options, kill=kill)
        assert killed.returncode == -signal.SIGKILL
        assert tree(out) != tree(prepared[0])
        assert list(out.rglob(".unfinished-*"))
        assert run_script(data.release, "--out", out, *data.options).returncode == 0
        assert tree(out) == tree(prepared[0]), kill


@pytest.mark.slow
def test_test_images_are_optional(data, tmp_path):
    options = ["--trainval", data.trainval, "--sbd", data.sbd]
    finished = run_script(data.release, "--out", tmp_path, *options)
    assert finished.returncode == 0, finished.stderr
    assert "no test images" in finished.stdout
    assert "login" in finished.stdout
    assert not (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt").exists()
    finished = run_script(data.release, "--out", tmp_path, *options, "--test", data.test)
    assert "test: 2 images" in finished.stdout
    assert (tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{TEST[0]}.jpg").read_bytes() == jpeg(TEST[0])


# Archives that are not what they should be


def test_the_script_accepts_only_official_archives(data, tmp_path):
    command = [sys.executable, "scripts/prepare_voc.py", "--out", str(tmp_path), *data.options]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "prepare_voc: '" in finished.stderr
    assert OFFICIAL.trainval.md5 in finished.stderr
    assert data.trainval.exists()
    assert not list(tmp_path.rglob("*.jpg"))


def test_official_checksums():
    """Typed a second time, so that no slip of the hand goes unseen."""
    assert [archive.md5 for archive in (OFFICIAL.trainval, OFFICIAL.test, OFFICIAL.sbd)] == [
        "6cd6e144f989b92b3379bac3b3de84fd",
        "9065beb292b6c291fad82b2725749fda",
        "82b4d87ceb2ed10f6038a1cba92111cb",
    ]
    assert OFFICIAL.trainval.url == "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
    assert OFFICIAL.counts == {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456}


def test_a_missing_local_archive_is_reported_first(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), *data.options[:4], "--sbd", "nowhere.tgz"], data.release)
    assert "argument --sbd: no file 'nowhere.tgz'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unofficial_counts_are_an_error(data, tmp_path, capsys):
    release = Release(data.release.trainval, data.release.test, data.release.sbd, {"train_aug": 10582})
    assert main(["--out", str(tmp_path), *data.options], release) == 1
    assert "train_aug lists 7 images, not 10582" in capsys.readouterr().err


def test_an_image_that_is_not_in_the_archive_is_named(data, tmp_path, capsys):
    contents = voc_contents()
    del contents["VOCdevkit/VOC2012/JPEGImages/2010_000005.jpg"]
    write_tar(tmp_path / "trainval.tar", contents)
    release = describe(tmp_path / "trainval.tar", data.test, data.sbd)
    options = ["--trainval", str(tmp_path / "trainval.tar"), "--sbd", str(data.sbd)]
    assert main(["--out", str(tmp_path), *options], release) == 1
    assert "train_aug: 1 ids have no image in" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [np.full((4, 4), 21, np.uint8), np.zeros((4, 4, 3), np.uint8)])
def test_masks_of_other_formats_are_refused(labels):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": labels}})
    with pytest.raises(UserError, match=r"cls/x\.mat holds .*SBD's are \(H, W\) of 0\.\.20"):
        prepare_voc.read_sbd_mask(buffer.getvalue(), "cls/x.mat")


def test_a_converted_mask_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.full((4, 4), 20, np.uint8)))
    assert labels_of(path) == ["tvmonitor"]
    Image.open(path).convert("L").save(path)
    with pytest.raises(UserError, match="holds 52, VOC's labels end at 20"):
        labels_of(path)


def test_nothing_is_written_outside_the_folder(tmp_path):
    root = "VOCdevkit/VOC2012/JPEGImages"
    write_tar(tmp_path / "hostile.tar", {f"{root}/{name}.jpg": b"x" for name in ("good", "../../../../evil", "/evil")})
    with tarfile.open(tmp_path / "hostile.tar", "a") as tar:
        link = tarfile.TarInfo(f"{root}/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    unpack(tmp_path / "hostile.tar", tmp_path / "out" / "voc", ("JPEGImages",))
    assert tree(tmp_path / "out") == {"voc/JPEGImages/good.jpg": b"x"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar", "out"]


@pytest.mark.parametrize(
    "name",
    [
        "ImageSets/Segmentation/train_aug.txt",  # as other projects share it
        "SegmentationClassAug/2007_000032.png",
        "SegmentationClass/2007_000032.png",  # corrected by hand
        "image_labels.json",
    ],
)
def test_files_of_others_are_not_overwritten(data, name, tmp_path):
    target = tmp_path / "VOCdevkit" / "VOC2012" / name
    target.parent.mkdir(parents=True)
    target.write_bytes(b"another's")
    finished = run_script(data.release, "--out", tmp_path, *data.options)
    assert finished.returncode == 1
    assert f"{name}' is there already and is not what the archives give; move it" in finished.stderr
    assert target.read_bytes() == b"another's"
