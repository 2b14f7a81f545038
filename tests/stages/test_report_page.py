"""The page of a run: its facts and its gallery, read back from the HTML."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pseudolabel as pl
from pseudolabel.config import Experiment
from pseudolabel.errors import NotOursError, SettingError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.scores import SCORES, read_confidences
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.refine import write_masks
from tests.e2e.commands import call, expect

pytestmark = pytest.mark.slow


def gallery(path: str | Path) -> dict[str, Any]:
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', Path(path).read_text(), re.S)
    assert text is not None
    return json.loads(text[1])


@pytest.fixture
def run(experiment: Experiment, one_rank: Rank) -> Experiment:
    write_labels(experiment, one_rank)
    write_masks(experiment, one_rank)
    return experiment


def test_the_command_shows_every_sample_with_maps_masks_and_truth(run: Experiment) -> None:
    data = ["--vocabulary", "shapes", "--source.path", run.source.path, "--source.split", run.source.split]
    expect(0, call("evaluate", "masks", "--out", run.out, *data))
    done = expect(0, call("report", run.out, *data))
    page = Path(run.out) / "report.html"
    assert done.out.strip() == f"report -> {page}"
    shown = gallery(page)
    confidences = dict(read_confidences(Folder(run.out) / "masks"))
    assert {picture["key"]: picture["confidence"] for picture in shown["pictures"]} == confidences
    for picture in shown["pictures"]:
        assert len(picture["maps"]) == len(picture["classes"]) > 0
        uris = [picture[name] for name in ("image", "mask", "truth")] + picture["maps"]
        assert all(re.match(r"data:image/(png|jpeg);base64,.", uri) for uri in uris)
    text = page.read_text()
    for fact in ("Scores of masks", "mIoU", "diffsegmenter.timesteps", "Classes in the masks", "masks-iou.png"):
        assert fact in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    span = re.search(r"by confidence from ([\d.]+) to ([\d.]+): ([\d, ]+)", text)
    assert span is not None
    low, high = float(span[1]), float(span[2])
    assert all(low <= confidence <= high for confidence in confidences.values())
    assert sum(map(int, span[3].split(", "))) == len(confidences)
    assert 'class="bar" style="--length:100.0%"' in text
    assert call("report", run.out, *data).status == 0  # ours, so it may be written again


def test_a_part_of_the_samples_by_confidence(run: Experiment, tmp_path: Path) -> None:
    ranked = sorted(read_confidences(Folder(run.out) / "masks"), key=lambda image: image.value)
    shown = gallery(pl.report(run.out, str(tmp_path / "three.html"), images=3))
    keys = {picture["key"] for picture in shown["pictures"]}
    assert len(keys) == 3 < len(ranked)
    assert {ranked[0].key, ranked[-1].key} < keys
    assert all(picture["truth"] == "" for picture in shown["pictures"])  # no source was given


def test_a_corrected_mask_is_marked(run: Experiment, tmp_path: Path) -> None:
    key = pl.export(run.out, to="png", folder=tmp_path / "worst", worst=1) and next(
        path.stem for path in (tmp_path / "worst" / "masks").iterdir()
    )
    pl.correct(run.out, masks=tmp_path / "worst")
    shown = gallery(pl.report(run.out, str(tmp_path / "page.html")))
    assert [picture["key"] for picture in shown["pictures"] if picture["source"] == "human"] == [key]


def test_maps_alone_and_masks_without_scores(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no CAMs or masks in .*; give the output folder of generate"):
        pl.report(experiment.out)
    write_labels(experiment, one_rank)
    alone = gallery(pl.report(experiment.out, str(tmp_path / "cams.html")))["pictures"]
    assert all(picture["maps"] and not picture["mask"] and picture["confidence"] is None for picture in alone)
    write_masks(experiment, one_rank)
    (Path(experiment.out) / "masks" / SCORES).unlink()
    both = gallery(pl.report(experiment.out, str(tmp_path / "both.html")))["pictures"]
    assert [picture["key"] for picture in both] == [picture["key"] for picture in alone]
    assert all(picture["mask"] for picture in both)


def test_what_is_not_ours_stays(run: Experiment, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(NotOursError):
        pl.report(run.out, str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == "mine"
    with pytest.raises(SettingError, match="`images` 0"):
        pl.report(run.out, str(tmp_path / "other.html"), images=0)
    with pytest.raises(SettingError, match="names a folder"):
        pl.report(replace(run).out, str(tmp_path) + "/")
