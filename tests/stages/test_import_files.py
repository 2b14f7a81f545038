"""Score maps and masks of other programs become shards that the other stages take, and score as they do directly."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel as pl
from pseudolabel.config import CrfConfig, EvaluateConfig, Experiment, SourceConfig, WorkConfig
from pseudolabel.errors import NotOursError, OutputError, SettingError, SourceError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.io.folder import Folder
from pseudolabel.records import IGNORE
from pseudolabel.runtime.rank import Rank
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.verify import verify
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.evaluate import evaluate
from pseudolabel.stages.export_cams import export_cams
from pseudolabel.stages.import_files import import_files
from pseudolabel.stages.refine import write_masks
from pseudolabel.stages.sheet import draw_sheet
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect, failures, samples, shards
from tests.e2e.forks import run_fork

VOC = load_vocabulary("voc")
Cams = dict[str, tuple[tuple[int, ...], np.ndarray]]
"""Classes, and float32 maps in [0, 1], by key."""


@pytest.fixture
def voc(voc_sample: Path, tmp_path: Path) -> Experiment:
    return Experiment(
        out=str(tmp_path / "out"),
        vocabulary="voc",
        source=SourceConfig(path=str(voc_sample), split="val", labels="masks", limit=15),
        work=WorkConfig(unit=8, workers=1, loaders=2),
        crf=CrfConfig(iterations=1),
        evaluate=EvaluateConfig(plots=False),
    )


def read(experiment: Experiment) -> Source:
    return open_source(experiment.source, VOC if experiment.vocabulary == "voc" else load_vocabulary("shapes"))


def damaged_cams(experiment: Experiment) -> Cams:
    """One map per true class: the truth shifted by 9 pixels, weakened at random; never 0 or 1 everywhere."""
    source, cams = read(experiment), {}
    for entry in source.entries:
        truth = source.ground_truth(entry)
        assert truth is not None
        noise = np.random.default_rng(len(cams)).random((len(entry.classes), *truth.labels.shape))
        shifted = np.roll(truth.labels, 9, axis=1)
        maps = [
            np.where(shifted == index, 0.4 + own / 2, own / 2) for index, own in zip(entry.classes, noise, strict=True)
        ]
        cams[entry.key] = entry.classes, np.array(maps, np.float32)
    return cams


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content)


def as_irnet(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    keys, whole = torch.tensor(classes) - 1, torch.from_numpy(maps)
    save(folder / f"{key}.npy", {"keys": keys, "cam": whole[:, ::4, ::4].contiguous(), "high_res": maps})


def as_irnet_without_high_res(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    save(folder / f"{key}.npy", {"keys": np.array(classes) - 1, "cam": maps[:, ::4, ::4]})


def as_seam(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    save(folder / f"{key}.npy", {index - 1: own for index, own in zip(classes, maps, strict=True)})


def as_seam_after_crf(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    save(folder / f"{key}.npy", {0: 1 - maps.max(0), **dict(zip(classes, maps, strict=True))})


def as_clip_es(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    save(folder / f"{key}.npy", {"keys": np.array(classes) - 1, "attn_highres": maps.astype(np.float16)})


def as_png(folder: Path, key: str, classes: tuple[int, ...], maps: np.ndarray) -> None:
    (folder / key).mkdir(parents=True, exist_ok=True)
    for index, own in zip(classes, maps, strict=True):
        Image.fromarray(np.round(own * 255).astype(np.uint8)).save(folder / key / f"{VOC.names[index]}.png")


Layout = Callable[[Path, str, tuple[int, ...], np.ndarray], None]
SAME: Callable[[np.ndarray], np.ndarray] = lambda maps: maps  # noqa: E731
LAYOUTS: dict[str, tuple[Layout, str, Callable[[np.ndarray], np.ndarray]]] = {
    "IRNet": (as_irnet, "npy", SAME),
    "IRNet's strided maps": (as_irnet_without_high_res, "npy", lambda maps: maps[:, ::4, ::4]),
    "SEAM, MCTformer": (as_seam, "npy", SAME),
    "SEAM after its CRF": (as_seam_after_crf, "npy", SAME),
    "CLIP-ES": (as_clip_es, "npy", SAME),
    "PNG": (as_png, "png", lambda maps: np.round(maps * 255) / 255),
}


@pytest.mark.slow
@pytest.mark.parametrize(("write", "kind", "stored"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_cams_score_as_they_do_directly(
    write: Layout,
    kind: Any,
    stored: Callable[[np.ndarray], np.ndarray],
    voc: Experiment,
    one_rank: Rank,
    tmp_path: Path,
) -> None:
    cams, source = damaged_cams(voc), read(voc)
    exact, rounded = ThresholdSweep.empty(len(VOC)), ThresholdSweep.empty(len(VOC))
    for entry in source.entries:
        classes, maps = cams[entry.key]
        write(tmp_path / "cams", entry.key, classes, maps)
        truth = source.ground_truth(entry)
        assert truth is not None
        for sweep, dtype in ((exact, np.float32), (rounded, np.float16)):
            scores = at_image_size(stored(maps).astype(dtype), truth.labels.shape, final=True)
            sweep.add(truth.labels, scores, classes)
    summary = import_files(voc, one_rank, str(tmp_path / "cams"), kind)
    assert summary is not None
    assert summary.statuses == {"ok": 15}
    report = evaluate(voc, "cams", one_rank)
    np.testing.assert_array_equal(report.curve.miou, rounded.curve())
    # 8-bit values are on thresholds such as .6 exactly, which float16 may cross.
    np.testing.assert_allclose(report.curve.miou, exact.curve(), atol=1e-2 if kind == "png" else 2e-3)
    assert verify(Folder(f"{voc.out}/cams")) == []


@pytest.mark.slow
def test_masks_score_as_they_do_directly(voc: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    source, counts = read(voc), Confusion.empty(len(VOC))
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, entry in enumerate(source.entries):
        truth = source.ground_truth(entry)
        assert truth is not None
        mask = np.roll(truth.labels, 11, axis=0)
        mask[:5] = IGNORE
        image = Image.fromarray(mask)
        if number % 2:
            image.putpalette([value for colour in range(256) for value in (colour, 0, 0)])
        image.save(folder / f"{entry.key}.png")
        counts.add(truth.labels, mask)
    summary = import_files(voc, one_rank, str(folder), "masks")
    assert summary is not None
    assert summary.statuses == {"ok": 15}
    assert evaluate(voc, "masks", one_rank).miou == counts.miou
    assert verify(Folder(f"{voc.out}/masks")) == []
    fields = json.loads(samples(Path(voc.out) / "masks")[source.entries[0].key]["json"])
    assert fields["names"] == [VOC.names[index] for index in source.entries[0].classes]
    assert fields["confidence"] is None
    assert (Path(voc.out) / "masks" / "scores.csv").is_file()
    assert json.loads((Path(voc.out) / "masks" / "id2label.json").read_text())["8"] == "cat"


@pytest.fixture
def shapes_cams(experiment: Experiment, tmp_path: Path) -> tuple[Path, Cams]:
    """A folder of dictionaries for the five images."""
    experiment = replace(experiment, source=replace(experiment.source, labels="masks"))
    cams = damaged_cams(experiment)
    for key, (classes, maps) in cams.items():
        as_clip_es(tmp_path / "cams", key, classes, maps)
    return tmp_path / "cams", cams


def test_bad_files_are_recorded_and_taken_when_fixed(
    experiment: Experiment, shapes_cams: tuple[Path, Cams], one_rank: Rank
) -> None:
    folder, cams = shapes_cams
    keys = sorted(cams)
    (folder / f"{keys[0]}.npy").unlink()
    save(folder / f"{keys[1]}.npy", {"keys": np.array(cams[keys[1]][0]) - 1, "cam": cams[keys[1]][1] * 2})
    save(folder / f"{keys[2]}.npy", {"keys": np.array([]), "cam": np.zeros((0, 128, 128))})
    save(folder / "of-another-set.npy", {})
    (folder / "notes.txt").write_text("")
    summary = pl.import_cams(experiment, folder=str(folder), format="npy")
    assert summary.statuses == {"missing": 1, "ok": 2, "other_classes": 1, "out_of_range": 1}
    assert summary.exit_status == 3
    assert summary.left_out == {"of no listed image": 1, ".txt": 1}
    assert failures(Path(experiment.out) / "cams") == {
        keys[0]: "missing",
        keys[1]: "out_of_range",
        keys[2]: "other_classes",
    }
    for key in keys[:3]:
        as_clip_es(folder, key, *cams[key])
    again = pl.import_cams(experiment, folder=str(folder), format="npy", retry_failed=True)
    assert again.statuses == {"ok": 5}
    for key, (classes, maps) in cams.items():
        with np.load(io.BytesIO(samples(Path(experiment.out) / "cams")[key]["cam.npz"])) as arrays:
            assert tuple(arrays["classes"]) == classes
            np.testing.assert_array_equal(arrays["maps"], maps.astype(np.float16))


def test_changed_files_are_imported_again(
    experiment: Experiment, shapes_cams: tuple[Path, Cams], one_rank: Rank
) -> None:
    folder, cams = shapes_cams
    pl.import_cams(experiment, folder=str(folder), format="npy")
    out = Path(experiment.out, "cams")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.tar")}
    key = min(cams)
    as_seam(folder, key, cams[key][0], cams[key][1] / 2)
    pl.import_cams(experiment, folder=str(folder), format="npy")
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.tar")}
    assert [name for name in after if after[name] != before[name]] == ["cams-000000.tar"]
    assert verify(Folder(str(out))) == []
    (folder / f"{key}.npz").write_bytes(b"")
    with pytest.raises(OutputError, match="format: npy -> npz"):
        pl.import_cams(experiment, folder=str(folder), format="npz")


def test_all_that_follows_takes_imported_cams(
    experiment: Experiment, shapes_cams: tuple[Path, Cams], one_rank: Rank, tmp_path: Path
) -> None:
    """Without a CRF the masks are the maps as they were given, at the fixed threshold; nothing scales them."""
    folder, cams = shapes_cams
    crf = CrfConfig(iterations=0, background="threshold", background_value=0.45, ignore_below=0.0)
    experiment = replace(experiment, crf=crf)
    pl.import_cams(experiment, folder=str(folder), format="npy")
    for engine in ("scipy", "torch"):
        own = replace(experiment, crf=replace(crf, engine=engine))
        write_masks(own, one_rank)
        dataset = pl.ShardDataset(f"{experiment.out}/cams")
        for item, mask in zip(dataset, pl.ShardDataset(f"{experiment.out}/masks"), strict=True):
            classes, maps = cams[item["key"]]
            np.testing.assert_array_equal(item["scores"].numpy(), maps.astype(np.float16))
            scores = maps.astype(np.float16).astype(np.float32)
            best = np.array(classes, np.uint8)[scores.argmax(0)]
            expected = np.where(scores.max(0) > np.float32(0.45), best, 0)
            np.testing.assert_array_equal(mask["mask"].numpy(), expected)
        for path in Path(experiment.out, "masks").iterdir():
            path.unlink()
    draw_sheet(experiment, str(tmp_path / "sheet.png"), 3, "")
    assert Image.open(tmp_path / "sheet.png").size[0] > 100


def test_exported_cams_come_back(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    experiment = replace(experiment, evaluate=EvaluateConfig(plots=False))
    pl.cams(experiment)
    assert export_cams(f"{experiment.out}/cams", str(tmp_path / "npy")) == 5
    for key, members in samples(Path(experiment.out) / "cams").items():
        found = np.load(tmp_path / "npy" / f"{key}.npy", allow_pickle=True).item()
        fields = json.loads(members["json"])
        assert (found["keys"] + 1).tolist() == fields["classes"]
        assert found["high_res"].shape == (len(fields["classes"]), fields["height"], fields["width"])
        with np.load(io.BytesIO(members["cam.npz"])) as arrays:
            np.testing.assert_array_equal(found["cam"], arrays["maps"])
    back = replace(experiment, out=str(tmp_path / "back"))
    pl.import_cams(back, folder=str(tmp_path / "npy"), format="npy")
    ours, theirs = (evaluate(own, "cams", one_rank) for own in (experiment, back))
    np.testing.assert_allclose(theirs.curve.miou, ours.curve.miou, atol=2e-3)
    assert export_cams(f"{experiment.out}/cams", str(tmp_path / "npy")) == 5  # again
    (tmp_path / "npy" / f"{key}.npy").write_bytes(b"theirs")
    with pytest.raises(NotOursError, match=key):
        export_cams(f"{experiment.out}/cams", str(tmp_path / "npy"))


def test_our_own_npz_comes_back_with_the_same_bytes(experiment: Experiment, tmp_path: Path) -> None:
    pl.cams(experiment)
    shards = samples(Path(experiment.out) / "cams")
    (tmp_path / "npz").mkdir()
    for key, members in shards.items():
        (tmp_path / "npz" / f"{key}.cam.npz").write_bytes(members["cam.npz"])
    back = replace(experiment, out=str(tmp_path / "back"))
    pl.import_cams(back, folder=str(tmp_path / "npz"), format="npz")
    assert samples(Path(back.out) / "cams") == shards


def test_bad_masks_are_recorded(experiment: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    truth = sorted(Path(experiment.source.path, "SegmentationClass").glob("*.png"))
    for path in truth:
        (folder / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((128, 64), np.uint8)).save(folder / truth[0].name)
    Image.fromarray(np.full((128, 128), 200, np.uint8)).save(folder / truth[1].name)
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(folder / truth[2].name)
    (folder / truth[3].name).unlink()
    summary = pl.import_masks(experiment, folder=str(folder))
    assert summary.statuses == {"missing": 1, "ok": 1, "size_mismatch": 1, "unknown_class": 1, "unreadable": 1}


def test_folders_that_do_not_fit(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        pl.import_masks(experiment, folder=str(tmp_path / "none"))
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(SourceError, match=r"1 of no listed image.*'val_000001\.npy'"):
        pl.import_cams(experiment, folder=str(tmp_path), format="npy")
    with pytest.raises(SourceError, match=r"val_000001/CLASS\.png"):
        pl.import_cams(experiment, folder=str(tmp_path), format="png")
    with pytest.raises(SettingError, match="no setting"):
        pl.import_cams(experiment, {"nothing": 1}, folder=str(tmp_path), format="png")


@pytest.mark.slow
def test_commands(experiment: Experiment, shapes_cams: tuple[Path, Cams], tmp_path: Path) -> None:
    folder, _ = shapes_cams
    data = ["--config", "shapes", "--source.path", experiment.source.path, "--source.split", "val"]
    out = tmp_path / "out"
    expect(0, call("import-cams", folder, "--format", "npy", *data, "--out", out))
    expect(0, call("refine", "--out", out, "--crf.iterations", "1"))
    expect(0, call("evaluate", "cams", *data, "--out", out))
    for kind in ("cams", "masks"):
        expect(0, call("verify", out / kind))
    together = ["--work.unit", "1", *data]
    for ranks in (0, 2):
        arguments = ["import-cams", folder, "--format", "npy", *together, "--out", tmp_path / f"by-{ranks}"]
        expect(0, run_fork(*arguments, ranks=ranks))
    assert shards(tmp_path / "by-0" / "cams") == shards(tmp_path / "by-2" / "cams")
    truth = Path(experiment.source.path, "SegmentationClass")
    expect(0, call("import-masks", truth, *data, "--out", tmp_path / "masks"))
    outcome = expect(0, call("export-cams", out / "cams", "--to", tmp_path / "npy"))
    assert outcome.last_line == f"5 files -> {tmp_path / 'npy'}"
