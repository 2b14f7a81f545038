import json
from dataclasses import replace
from pathlib import Path

import pytest

from pseudolabel.config import Experiment
from pseudolabel.stages.ablate import ablate
from pseudolabel.stages.units import Rank


@pytest.fixture
def two_images(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("COLUMNS", "160")
    evaluation = replace(experiment.evaluate, plots=False)
    return replace(experiment, source=replace(experiment.source, limit=2), evaluate=evaluation)


@pytest.mark.slow
def test_components(two_images: Experiment, one_rank: Rank, capsys: pytest.CaptureFixture[str]) -> None:
    captions = replace(two_images.captions, source=f"{two_images.source.path}/captions.jsonl")
    assert ablate(replace(two_images, captions=captions), "components", one_rank) == 0
    rows = json.loads(Path(two_images.out, "ablate-components/metrics.json").read_text())
    assert len(rows) == 8
    assert len({row["oracle_miou"] for row in rows}) > 4  # the switches do change something
    assert all(row["images"] == 2 for row in rows)
    table = capsys.readouterr().out
    assert all(row["variant"][:20] in table for row in rows)


@pytest.mark.slow
def test_timesteps(two_images: Experiment, one_rank: Rank, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate(two_images, "timesteps", one_rank) == 0
    rows = json.loads(Path(two_images.out, "ablate-timesteps/metrics.json").read_text())
    assert [row["variant"] for row in rows[:4]] == ["t = 1", "t = 50", "t = 100", "t = 150"]
    assert len(rows) == 5
    assert "70.49" in capsys.readouterr().out  # the paper's, beside ours
