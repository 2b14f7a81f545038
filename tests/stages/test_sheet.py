from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.config import Experiment
from pseudolabel.errors import UserError
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.refine import write_masks
from pseudolabel.stages.sheet import draw_sheet
from pseudolabel.stages.units import Rank


def test_a_sheet_of_what_there_is(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CAM shards in"):
        draw_sheet(experiment, tmp_path / "none.png", rows=3, title="")
    write_labels(experiment, one_rank)
    draw_sheet(experiment, tmp_path / "cams.png", rows=3, title="CAMs")
    write_masks(experiment, one_rank)
    draw_sheet(experiment, tmp_path / "masks.png", rows=3, title="Masks")
    draw_sheet(experiment, tmp_path / "all.png", rows=99, title="All")
    cams, masks, everything = (Image.open(tmp_path / f"{name}.png").size for name in ("cams", "masks", "all"))
    assert cams[0] < masks[0]  # a column more
    assert masks[1] < everything[1]  # five rows instead of three
    assert masks[0] == everything[0]


def test_a_source_without_truth(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    write_labels(experiment, one_rank)
    draw_sheet(experiment, tmp_path / "with.png", rows=2, title="")
    for name in ("JPEGImages", "ImageSets", "Annotations"):
        (tmp_path / "bare" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bare" / name).symlink_to(f"{experiment.source.path}/{name}")
    bare = replace(experiment, source=replace(experiment.source, path=str(tmp_path / "bare")))
    draw_sheet(bare, tmp_path / "without.png", rows=2, title="")
    assert Image.open(tmp_path / "without.png").width < Image.open(tmp_path / "with.png").width
