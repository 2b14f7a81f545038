"""Which checkpoint a training resumes from, and the message if it cannot."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from pseudolabel_train.errors import WeightsError
from pseudolabel_train.report import describe_initialisation
from pseudolabel_train.resume import choose_checkpoint


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder as MMEngine leaves it, moved from elsewhere."""
    for number in (3, 6, 12):
        torch.save({"state_dict": {"a": torch.ones(3000)}}, tmp_path / f"iter_{number}.pth")
    (tmp_path / "last_checkpoint").write_text("/elsewhere/work/iter_12.pth")
    return tmp_path


def choose(work: Path, **settings) -> Config:
    cfg = Config({"work_dir": str(work), "model": {"backbone": {}}, **settings})
    choose_checkpoint(cfg)
    return cfg


def test_the_newest_is_found_in_a_moved_folder(work):
    cfg = choose(work)
    assert (cfg.resume, cfg.load_from) == (True, str(work / "iter_12.pth"))
    assert describe_initialisation(cfg) == "random"  # a checkpoint that is resumed is no initialisation


def test_a_truncated_newest_names_the_previous_one(work):
    (work / "iter_12.pth").write_bytes((work / "iter_12.pth").read_bytes()[:5000])
    before = work / "iter_6.pth"
    expected = rf"newest checkpoint '{work}/iter_12\.pth' is cut off; .*set `resume` `cfg_options` load_from={before}"
    with pytest.raises(WeightsError, match=expected):
        choose(work)
    assert choose(work, load_from=str(before)).load_from == str(before)


def test_a_missing_newest_and_a_folder_without_last_checkpoint(work):
    (work / "iter_12.pth").unlink()
    with pytest.raises(
        WeightsError, match=r"names '/elsewhere/work/iter_12\.pth', which does not exist.*iter_6\.pth, iter_3"
    ):
        choose(work)
    (work / "last_checkpoint").unlink()
    with pytest.raises(WeightsError, match=rf"no last_checkpoint.*load_from={work}/iter_6\.pth"):
        choose(work)


def test_without_checkpoints_training_starts(tmp_path):
    cfg = choose(tmp_path / "new")
    assert (cfg.resume, cfg.get("load_from")) == (True, None)
