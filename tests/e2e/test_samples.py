"""Samples that fail, that have no labels, and a retry."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.crf.torch_engine import TorchMeanField
from tests.e2e.commands import assert_alike, call, expect, failures, finished_units, samples, shards
from tests.e2e.conftest import Shapes
from tests.e2e.forks import run_fork


def relabel(data: Path, key: str, old: str, new: str) -> None:
    path = data / "Annotations" / f"{key}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def first_class(data: Path, key: str) -> str:
    return json.loads((data / "image_labels.json").read_text())[key][0]


def test_bad_samples_and_their_retry(
    shapes: Shapes, own_data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out, image = tmp_path / "out", own_data / "JPEGImages" / "val_000004.jpg"
    whole, name = image.read_bytes(), first_class(own_data, "val_000009")
    damage(image)
    relabel(own_data, "val_000009", f"<name>{name}</name>", f"<name>{name}x</name>")
    outcome = run_fork("generate", *shapes.at(out, own_data))
    assert outcome.status == 3
    assert "Traceback" not in outcome.err
    assert outcome.last_note == (
        f"masks: 14 samples done, 2 failed; 'pseudolabel failures {out}/masks' lists them. Correct the labels (or give "
        "a --vocabulary that has them, and another --out). Fix the others and add --retry-failed."
    )
    assert outcome.err.count(f"did you mean '{name}'") == 1  # not once for each step
    assert f"cams: 14 samples done, 2 failed -> {out}/cams\n" in outcome.err
    assert [json.loads(line)["kind"] for line in outcome.out.splitlines()] == ["cams", "masks"]
    for kind in ("cams", "masks"):
        assert failures(out / kind) == {"val_000004": "truncated", "val_000009": "unknown_class"}
        expect(0, call("verify", out / kind))
    entry = json.loads((out / "cams" / "cams-000004.json").read_text())
    assert f"did you mean '{name}'" in entry["failures"][0]["message"]

    done = {kind: finished_units(out / kind) for kind in ("cams", "masks")}
    assert expect(3, call("generate", *shapes.at(out, own_data))).status == 3  # failures are not forgotten
    assert {kind: finished_units(out / kind) for kind in done} == done

    listed = expect(3, call("failures", out, "--csv", tmp_path / "failures.csv"))
    assert listed.last_line == f"{out}: 2 failures: 1 truncated, 1 unknown_class"
    with (tmp_path / "failures.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["key"], row["status"]) for row in rows] == [
        ("cams", "val_000004", "truncated"),
        ("cams", "val_000009", "unknown_class"),
    ]
    scored = expect(3, call("evaluate", "masks", *shapes.at(out, own_data)))
    assert "2 of 16 images not scored: no prediction for 'val_000004', 'val_000009'" in scored.err

    image.write_bytes(whole)
    expect(3, call("generate", *shapes.at(out, own_data), "--retry-failed"))
    assert failures(out / "masks") == {"val_000009": "unknown_class"}
    relabel(own_data, "val_000009", f"<name>{name}x</name>", f"<name>{name}</name>")
    refused = expect(1, call("cams", *shapes.at(out, own_data)))
    assert "add --retry-failed" in refused.err
    corrected = expect(0, call("generate", *shapes.at(out, own_data), "--retry-failed"))
    assert corrected.last_note == f"masks: all 16 samples done -> {out}/masks"
    for kind in ("cams", "masks"):
        assert_alike(out / kind, shapes.out / kind)
        others = {unit: stat for unit, stat in done[kind].items() if unit[-1] not in "14"}
        assert others.items() <= finished_units(out / kind).items()  # just the two units were done again
        expect(0, call("verify", out / kind))


def test_a_run_without_readable_images_leaves_its_folder_free(shapes: Shapes, own_data: Path, tmp_path: Path) -> None:
    """Other settings, for CAMs and CRF, other labels, and a shorter list are taken as in an empty folder."""
    out, images = tmp_path / "out", sorted((own_data / "JPEGImages").glob("*.jpg"))[:4]
    whole = {image: image.read_bytes() for image in images}
    for image in images:
        image.write_bytes(b"")
    failed = expect(3, call("generate", *shapes.at(out, own_data), "--source.limit", "4"))
    assert "cams: none of 4 samples was done -> " in failed.err
    assert failed.last_note.startswith("masks: none of 4 samples was done; 'pseudolabel failures")
    for image, data in whole.items():
        image.write_bytes(data)
    name = first_class(own_data, images[0].stem)
    relabel(own_data, images[0].stem, f"<name>{name}</name>", "<name>heart</name>")
    changed = [*shapes.at(out, own_data), "--source.limit", "3", "--work.seed", "5", "--crf.iterations", "1"]
    expect(0, call("generate", *changed))
    expect(0, call("generate", *changed, "--out", tmp_path / "undisturbed"))
    for kind in ("cams", "masks"):
        assert shards(out / kind) == shards(tmp_path / "undisturbed" / kind)
        expect(0, call("verify", out / kind))


def test_a_retry_keeps_finished_samples(shapes: Shapes, own_data: Path, tmp_path: Path) -> None:
    """The finished half of a unit is taken from its shard: its image need not even be there any more."""
    out, images = tmp_path / "out", own_data / "JPEGImages"
    first, second = images / "val_000001.jpg", images / "val_000002.jpg"
    whole = second.read_bytes()
    second.write_bytes(b"")
    expect(3, call("cams", *shapes.at(out, own_data), "--source.limit", "2"))
    second.write_bytes(whole)
    first.unlink()
    expect(0, call("cams", *shapes.at(out, own_data), "--source.limit", "2", "--retry-failed"))
    expect(0, call("cams", *shapes.at(tmp_path / "undisturbed"), "--source.limit", "2"))
    assert_alike(out / "cams", tmp_path / "undisturbed" / "cams")


def test_a_retry_repeats_crf_failures(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's memory is full at first, for images with two classes; that is made by hand."""
    settings = [*shapes.at(tmp_path), "--source.limit", "4", "--crf.engine", "torch"]
    infer = TorchMeanField.__call__

    def full(self: TorchMeanField, images: list[torch.Tensor], scores: list[torch.Tensor]) -> list[torch.Tensor]:
        if len(scores[0]) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return infer(self, images, scores)

    with monkeypatch.context() as patch:
        patch.setattr(TorchMeanField, "__call__", full)
        assert "Traceback" not in expect(3, call("generate", *settings)).err
    failed = failures(tmp_path / "masks")
    assert 0 < len(failed) < 4
    assert set(failed.values()) == {"crf"}
    expect(3, call("generate", *settings))
    assert failures(tmp_path / "masks") == failed
    expect(0, call("generate", *settings, "--retry-failed"))
    assert set(samples(tmp_path / "masks")) == {f"val_{number:06d}" for number in range(1, 5)}


def unlabel(data: Path, key: str) -> None:
    path = data / "Annotations" / f"{key}.xml"
    head, _, _ = path.read_text().partition("<object>")
    path.write_text(f"{head}</annotation>")


def test_images_without_labels(shapes: Shapes, own_data: Path, tmp_path: Path) -> None:
    unlabel(own_data, "val_000002")
    skipped = expect(0, call("generate", *shapes.at(tmp_path / "skip", own_data)))
    assert skipped.last_note == f"masks: all 15 samples done, 1 without labels left out -> {tmp_path}/skip/masks"
    assert failures(tmp_path / "skip" / "cams") == {"val_000002": "unlabelled"}
    background = ("--source.unlabelled", "background")
    taken = expect(0, call("generate", *shapes.at(tmp_path / "take", own_data), *background))
    assert taken.last_note == f"masks: all 16 samples done -> {tmp_path}/take/masks"
    for out, statuses in (("skip", {"ok": 15, "unlabelled": 1}), ("take", {"ok": 16})):
        for kind in ("cams", "masks"):
            assert json.loads((tmp_path / out / kind / "index.json").read_text())["statuses"] == statuses
            assert json.loads((tmp_path / out / kind / "summary.json").read_text())["statuses"] == statuses
            expect(0, call("verify", tmp_path / out / kind))
    mask = Image.open(io.BytesIO(samples(tmp_path / "take" / "masks")["val_000002"]["png"]))
    assert not np.asarray(mask).any()
    fields = json.loads(samples(tmp_path / "take" / "cams")["val_000002"]["json"])
    assert fields["classes"] == []
