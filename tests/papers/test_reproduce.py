"""Every row of every table, run on Shapes with the small models."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from pseudolabel.config import Experiment
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods import freesegdiff_predictor
from pseudolabel.papers.data import DATA
from pseudolabel.papers.names import TableName
from pseudolabel.papers.reproduce import TABLES
from pseudolabel.stages import label
from pseudolabel.text import category_filter
from tests.e2e.commands import Outcome, call

IMAGES = 1


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is wrapped."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture(scope="module", autouse=True)
def each_model_is_loaded_once() -> Iterator[None]:
    """With one image, loading the small models takes most of a row's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label, "load_model", cache(label.load_model))
        patch.setattr(freesegdiff_predictor, "ClipScorer", cache(freesegdiff_predictor.ClipScorer))
        patch.setattr(category_filter, "load_pipeline", cache(category_filter.load_pipeline))
        yield


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce") / "shapes"
    assert call("shapes", "--out", folder, "--train", 0, "--val", IMAGES, "--seed", 7).status == 0
    return folder


def reproduce(table: str, shapes: Path, out: Path, *more: object) -> Outcome:
    quick = ("--elbo.samples", 2, "--freesegdiff.restarts", 1, "--work.workers", 1)
    options = ("--config", "shapes", "--data", shapes, "--limit", IMAGES, "--out", out, *quick)
    return call("reproduce", table, *options, *more)


def test_every_table_has_a_name():
    assert set(TABLES) == set(get_args(TableName))


def test_rows_name_known_data_and_scores():
    for table in TABLES.values():
        assert {row.data for row in table.rows} <= set(DATA)
        for row in table.rows:
            assert set(row.published) <= set(table.scores)
            assert row.change is not None or row.published


def test_rows_differ_in_their_settings():
    """Rows that differ in the papers have different settings, except that four ablations share one."""
    for name, table in TABLES.items():
        own = [row for row in table.rows if row.change is not None]
        settings = [(repr(row.change(Experiment())), row.data, row.labels, row.captions) for row in own]
        assert len(set(settings)) == len(settings) - 3 * (name == "diffseg-ablations")


def test_rows_are_the_papers_methods_whatever_the_experiment_chooses():
    plain = Experiment()
    beyond = replace(
        plain,
        diffsegmenter=replace(
            plain.diffsegmenter, prompt="joint", head_weights="output", affinity="power", iterations=3
        ),
        diffseg=replace(plain.diffseg, grouping="ncut"),
    )
    for table in TABLES.values():
        for change in (row.change for row in table.rows if row.change is not None):
            method, own, expected = change(beyond).method, change(beyond), change(plain)
            if method in ("diffsegmenter", "diffseg"):
                assert getattr(own, method) == getattr(expected, method)


def test_the_released_rows_have_the_shipped_settings():
    shipped = open_experiment("freesegdiff_released")
    rows = [row for row in TABLES["freesegdiff-1"].rows if row.name == "FreeSeg-Diff, as released"]
    assert [row.data for row in rows] == ["VOC val", "VOC-C", "COCO-Object", "COCO-27"]
    for row in rows:
        own = row.change(Experiment())
        assert (own.method, own.freesegdiff, own.filter) == (shipped.method, shipped.freesegdiff, shipped.filter)
        assert replace(own.captions, model=shipped.captions.model) == shipped.captions
        assert row.labels == "predicted"


@pytest.mark.slow
@pytest.mark.parametrize("name", get_args(TableName))
def test_every_row_runs(name, shapes, tmp_path):
    table = TABLES[name]
    done = reproduce(name, shapes, tmp_path)
    assert done.status == 0, done.err
    written = json.loads((tmp_path / name / "metrics.json").read_text())["rows"]
    assert [line["row"] for line in written] == [row.name for row in table.rows]
    for line, row in zip(written, table.rows, strict=True):
        assert line["published"] == dict(row.published)
        assert ("run" in line) == (row.change is not None and row.on_shapes)
        if "run" in line:
            assert line["run"]["images"] == IMAGES
            assert all(0 <= line["run"][score] <= 1 for score in table.scores)
    assert all(row.name in done.out for row in table.rows)


@pytest.mark.slow
def test_a_stopped_table_resumes(shapes, tmp_path):
    first = reproduce("diffseg-2", shapes, tmp_path)
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    again = reproduce("diffseg-2", shapes, tmp_path)
    assert shards
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == shards
    assert again.out.splitlines()[-5:] == first.out.splitlines()[-5:]


def test_missing_data(tmp_path):
    model = ("--model.name", "a-model-of-mine")
    done = call("reproduce", "diffseg-2", "--data", tmp_path, *model, "--out", tmp_path / "out")
    assert done.is_clean_error()
    assert str(tmp_path) in done.err
