"""The commands one after the other, and what others make of their shards."""

import io
import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image

from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect, finished_units, run, samples, shards, wait_until
from tests.e2e.conftest import Shapes
from tests.e2e.forks import start_fork


def test_generate_is_cams_and_refine(shapes: Shapes, tmp_path: Path) -> None:
    settings = shapes.at(tmp_path)
    outcome = expect(1, call("refine", *settings))
    assert "run 'pseudolabel cams' with this --out first" in outcome.err
    assert "cams: all 16 samples done" in expect(0, call("cams", *settings)).err
    assert "masks: all 16 samples done" in expect(0, call("refine", *settings)).err
    for kind in ("cams", "masks"):
        assert shards(tmp_path / kind) == shards(shapes.out / kind)
    done = {kind: finished_units(tmp_path / kind) for kind in ("cams", "masks")}
    expect(0, call("generate", *settings))  # there is nothing left to do
    assert {kind: finished_units(tmp_path / kind) for kind in done} == done


def test_the_torch_engine_writes_the_same_masks(shapes: Shapes, tmp_path: Path) -> None:
    """As a separate command and after CAMs; run.json names the engine, and another engine may resume."""
    settings = (*shapes.at(tmp_path / "at_once"), "--crf.engine", "torch")
    expect(0, call("generate", *settings))
    shutil.copytree(shapes.out / "cams", tmp_path / "after" / "cams")
    expect(0, call("refine", *shapes.at(tmp_path / "after"), "--crf.engine", "torch"))
    assert shards(tmp_path / "at_once" / "masks") == shards(tmp_path / "after" / "masks")
    expected, found = samples(shapes.out / "masks"), samples(tmp_path / "after" / "masks")
    agreement = [(open_mask(found[key]["png"]) == open_mask(expected[key]["png"])).mean() for key in expected]
    assert len(agreement) == 16
    assert np.mean(agreement) >= 0.999
    engines = [json.loads((out / "masks" / "run.json").read_text())["about"]["crf"]["engine"]
               for out in (shapes.out, tmp_path / "after")]  # fmt: skip
    assert engines == ["scipy", "torch"]
    outcome = expect(0, call("refine", *shapes.at(tmp_path / "after")))
    assert "masks: the run resumes with crf.engine: torch -> scipy\n" in outcome.err


def test_refine_waits_for_all_cams(shapes: Shapes, tmp_path: Path) -> None:
    shapes.begun(tmp_path, units=5)
    outcome = expect(1, call("refine", *shapes.at(tmp_path)))
    assert "3 CAM shards are not written yet" in outcome.err
    assert "the first is number 5" in outcome.err
    assert len(finished_units(tmp_path / "masks")) == 5  # those that could be refined are


def test_refine_follows_cams(shapes: Shapes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    follower = start_fork("refine", "--follow", *shapes.at(out), log=tmp_path / "log")
    expect(0, call("cams", *shapes.at(out), "--source.limit", "16"))
    assert follower.wait(120) == 0
    assert shards(out / "masks") == shards(shapes.out / "masks")


def test_refine_can_start_before_cams(shapes: Shapes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    follower = start_fork("refine", "--follow", *shapes.at(out), log=tmp_path / "log")
    shapes.begun(out, units=3)
    wait_until(lambda: len(finished_units(out / "masks")) == 3 or follower.poll() is not None)
    assert follower.poll() is None
    expect(0, call("cams", *shapes.at(out)))
    assert follower.wait(120) == 0
    assert "masks: all 16 samples done" in (tmp_path / "log").read_text()
    assert shards(out / "masks") == shards(shapes.out / "masks")


def test_the_summary_is_json(shapes: Shapes) -> None:
    for kind in ("cams", "masks"):
        summary = json.loads((shapes.out / kind / "summary.json").read_text())
        assert (summary["samples"], summary["shards"], summary["statuses"]) == (16, 8, {"ok": 16})
        assert summary["samples_per_second"] > 0


def test_webdataset_reads_the_shards(shapes: Shapes) -> None:
    for kind, members in (("cams", {"jpg", "cam.npz", "json"}), ("masks", {"jpg", "png", "json"})):
        urls = [str(path) for path in sorted((shapes.out / kind).glob("*.tar"))]
        read = list(webdataset.WebDataset(urls, shardshuffle=False))
        assert [sample["__key__"] for sample in read] == [f"val_{number:06d}" for number in range(1, 17)]
        assert all({name for name in sample if not name.startswith("__")} == members for sample in read)
    decoded = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg", "png", "json"))
    for image, _, fields in decoded:
        assert image.size == (fields["width"], fields["height"]) == (128, 128)
    masks = webdataset.WebDataset(urls, shardshuffle=False).decode(webdataset.handle_extension("png", open_mask))
    for sample in masks:
        assert set(np.unique(sample["png"])) <= {0, *sample["json"]["classes"]}


def open_mask(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_hub_reads_the_shards(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for kind in ("cams", "masks"):
        read = datasets.load_dataset(
            "webdataset", data_files=str(shapes.out / kind / "*.tar"), split="train", cache_dir=str(tmp_path)
        )
        assert read.num_rows == 16
        assert read["__key__"][0] == "val_000001"
        assert read[0]["jpg"].size == (128, 128)
        assert read[0]["json"]["key"] == "val_000001"
    assert read[0]["png"].mode == "P"
    assert set(np.unique(np.asarray(read[0]["png"]))) <= {0, *read[0]["json"]["classes"]}


def test_the_hub_reads_the_folder_of_masks(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the ledger's files, which lie there as well."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    read = datasets.load_dataset(str(shapes.out / "masks"), cache_dir=str(tmp_path))
    assert list(read) == ["train"]
    assert read["train"].num_rows == 16
    assert {"jpg", "png", "json"} <= read["train"].features.keys()
    labels = json.loads((shapes.out / "masks" / "id2label.json").read_text())
    assert labels == {
        **{str(label): name for label, name in enumerate(load_vocabulary("shapes").names)},
        "255": "ignore",
    }


def test_shards_are_a_source(shapes: Shapes, tmp_path: Path) -> None:
    """What one run has written another can read: images and labels from the CAM shards."""
    settings = ("--config", "shapes", "--source.kind", "shards", "--source.path", shapes.out / "cams" / "*.tar")
    expect(0, call("cams", *settings, "--source.limit", "4", "--out", tmp_path, "--work.unit", "2"))
    assert shards(tmp_path / "cams")["cams-000001.tar"] == shards(shapes.out / "cams")["cams-000001.tar"]


def test_scores_and_sheet(shapes: Shapes, tmp_path: Path) -> None:
    for kind in ("cams", "masks"):
        shutil.copytree(shapes.out / kind, tmp_path / kind)
        outcome = expect(0, call("evaluate", kind, *shapes.at(tmp_path)))
        assert "mIoU" in outcome.out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["cams"]["images"] == metrics["masks"]["images"] == 16
    assert metrics["masks"]["miou"] > 0.25  # it knows Shapes: without, a quarter of that
    assert {path.name for path in tmp_path.glob("*.png")} >= {"cams-threshold.png", "masks-confusion.png"}
    expect(0, call("sheet", *shapes.at(tmp_path), "--rows", "2", "--out-file", tmp_path / "sheet.png"))
    assert Image.open(tmp_path / "sheet.png").size > (400, 200)


VOC = ("--config", "shapes", "--vocabulary", "voc", "--source.split", "train")


def sizes(sample: Path) -> dict[str, tuple[int, int]]:
    names = (sample / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    return {name: Image.open(sample / "JPEGImages" / f"{name}.jpg").size for name in names}


def test_real_images(voc_sample: Path, tmp_path: Path) -> None:
    """What the small model says of them means nothing; sizes, shards, CRF and scores are real."""
    labels = voc_sample / "image_labels.json"
    settings = (*VOC, "--source.path", voc_sample, "--source.labels", labels, "--out", tmp_path)
    quick = ("--crf.iterations", "2")
    expect(0, call("generate", *settings, *quick))
    expected = sizes(voc_sample)
    assert len(expected) == 40
    for kind in ("cams", "masks"):
        found = samples(tmp_path / kind)
        assert set(found) == set(expected)
        for key, members in found.items():
            fields = json.loads(members["json"])
            assert (fields["width"], fields["height"]) == expected[key]
            assert members["jpg"] == (voc_sample / "JPEGImages" / f"{key}.jpg").read_bytes()
        expect(0, call("verify", tmp_path / kind))
        expect(0, call("evaluate", kind, *settings))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for kind in ("cams", "masks"):
        assert (metrics[kind]["images"], metrics[kind]["failures"]) == (40, {})
    done = finished_units(tmp_path / "cams")
    expect(0, call("generate", *settings, *quick))
    assert finished_units(tmp_path / "cams") == done


@pytest.mark.timeout(600)
def test_real_images_through_stable_diffusion(voc_sample: Path, stable_diffusion: Path, tmp_path: Path) -> None:
    """The architecture of v1.5 with random weights, for one class of an image, at one timestep and 128 pixels."""
    labels = json.loads((voc_sample / "image_labels.json").read_text())
    (tmp_path / "labels.json").write_text(json.dumps({key: names[:1] for key, names in labels.items()}))
    source = ("--vocabulary", "voc", "--source.path", voc_sample, "--source.limit", "1")
    settings = (*source, "--source.labels", tmp_path / "labels.json", "--out", tmp_path)
    model = ("--model.name", stable_diffusion, "--model.image_size", "128", "--diffsegmenter.timesteps", "[100]")
    expect(0, run("generate", *settings, *model, OMP_NUM_THREADS=str(os.cpu_count())))
    expected = sizes(voc_sample)
    for kind in ("cams", "masks"):
        found = samples(tmp_path / kind)
        assert len(found) == 1
        for key, members in found.items():
            fields = json.loads(members["json"])
            assert (fields["width"], fields["height"]) == expected[key]
        expect(0, call("verify", tmp_path / kind))
    expect(0, call("evaluate", "cams", *settings))
