from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pseudolabel.config import CrfConfig, Experiment
from pseudolabel.errors import NotOursError, SettingError, UserError
from pseudolabel.io.folder import Folder
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.scores import read_confidences
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.refine import write_masks
from pseudolabel.stages.sheet import draw_sheet
from tests.e2e.commands import call


def size(path: Path) -> tuple[int, int]:
    return Image.open(path).size


@pytest.mark.slow
def test_a_sheet_of_the_available_columns(
    experiment: Experiment, one_rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"no shards of cams, masks, segments in .*; run 'pseudolabel generate'"):
        draw_sheet(experiment, str(tmp_path / "none.png"), rows=3, title="")
    write_labels(experiment, one_rank)
    caplog.set_level("INFO", logger="pseudolabel")
    draw_sheet(experiment, str(tmp_path / "cams.png"), rows=3, title="CAMs")
    assert "'pseudolabel refine' writes them" in caplog.text
    caplog.clear()
    write_masks(experiment, one_rank)
    draw_sheet(experiment, str(tmp_path / "masks.png"), rows=3, title="Masks")
    draw_sheet(experiment, str(tmp_path / "all.png"), rows=99, title="All")
    assert "refine" not in caplog.text
    cams, masks, everything = (size(tmp_path / f"{name}.png") for name in ("cams", "masks", "all"))
    assert cams[0] < masks[0]  # a column more
    assert masks[1] < everything[1]  # five rows instead of three
    assert masks[0] == everything[0]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), [("freesegdiff", "masks"), ("diffseg", "segments")])
def test_methods_without_cams(experiment: Experiment, one_rank: Rank, tmp_path: Path, method: str, kind: str) -> None:
    factors = replace(experiment.freesegdiff, clip="shapes", strides=[8], crf=CrfConfig(iterations=0))
    experiment = replace(experiment, method=method, freesegdiff=replace(factors, refinement="none"))
    write_labels(experiment, one_rank)
    assert [path.name for path in Path(experiment.out).iterdir()] == [kind]
    settings = ["--out", experiment.out, "--vocabulary", "shapes", "--source.path", experiment.source.path]
    done = call("sheet", *settings, "--source.split", "val", "--rows", 2)
    assert done.status == 0, done.err
    drawn = Image.open(f"{experiment.out}/sheet.png")
    assert drawn.width > 2 * 3 * 200  # two samples beside each other, each with image, ground truth and result
    again = call("sheet", *settings, "--source.split", "val", "--rows", 4)
    assert again.status == 0, again.err
    assert size(Path(experiment.out) / "sheet.png")[1] > drawn.height


@pytest.mark.slow
def test_the_order_follows_confidence(
    experiment: Experiment, one_rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def sheet(name: str, **chosen: Any) -> bytes:
        draw_sheet(experiment, str(tmp_path / f"{name}.png"), rows=2, title="", **chosen)
        return (tmp_path / f"{name}.png").read_bytes()

    write_labels(experiment, one_rank)
    write_masks(experiment, one_rank)
    known = sorted(read_confidences(Folder(experiment.out) / "masks"), key=lambda image: image.value)
    keys = [image.key for image in known]
    assert len({image.value for image in known}) == len(known) > 2
    assert sheet("worst", order="worst") == sheet("two", only=keys[:2]) != sheet("other", only=keys[1::-1])
    assert sheet("best", order="best") == sheet("last", only=keys[:-3:-1])
    assert sheet("random", order="random") == sheet("again", order="random")
    sheet("some", only=[keys[0], "nowhere"])
    assert "not readable: nowhere" in caplog.text
    with pytest.raises(UserError, match="named elsewhere, nowhere"):
        sheet("none", only=["nowhere", "elsewhere"])


def test_a_source_without_truth(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    write_labels(experiment, one_rank)
    draw_sheet(experiment, str(tmp_path / "with.png"), rows=2, title="")
    for name in ("JPEGImages", "ImageSets", "Annotations"):
        (tmp_path / "bare" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bare" / name).symlink_to(f"{experiment.source.path}/{name}")
    bare = replace(experiment, source=replace(experiment.source, path=str(tmp_path / "bare")))
    draw_sheet(bare, str(tmp_path / "without.png"), rows=2, title="")
    assert size(tmp_path / "without.png")[0] < size(tmp_path / "with.png")[0]


def test_a_users_image_is_not_overwritten(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"a photo")
    with pytest.raises(NotOursError, match=r"'photo.png'; choose another `out_file`"):
        draw_sheet(experiment, str(tmp_path / "photo.png"), rows=2, title="")
    assert (tmp_path / "photo.png").read_bytes() == b"a photo"


def test_home_is_expanded_and_other_vocabularies_are_refused(
    experiment: Experiment, one_rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_labels(experiment, one_rank)
    draw_sheet(experiment, "~/home.png", rows=1, title="")
    assert (tmp_path / "home.png").exists()
    with pytest.raises(SettingError, match=r"vocabulary 'custom' has 1 classes; give the run's own `vocabulary`"):
        draw_sheet(replace(experiment, vocabulary="circle"), "~/other.png", rows=5, title="")
    with pytest.raises(SettingError, match="`rows` 0: give at least 1"):
        draw_sheet(experiment, "~/other.png", rows=0, title="")
