import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pseudolabel.config import CaptionConfig, Experiment
from pseudolabel.errors import ModelError, OutputError, SettingError, SourceError
from pseudolabel.io.folder import Folder
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.dataset import write_shapes
from pseudolabel.shards.failures import find_failures
from pseudolabel.shards.ledger import Ledger
from pseudolabel.stages import caption
from pseudolabel.stages.caption import write_captions
from pseudolabel.stages.label import write_labels
from pseudolabel.text.captions import load_captions
from tests.plain.blip import tiny_blip


@pytest.fixture
def captioned(experiment: Experiment, tmp_path: Path) -> Experiment:
    """The experiment with a data set of its own and a tiny BLIP, whose folder a test may take away."""
    data, blip = tmp_path / "data", tiny_blip(tmp_path / "blip")
    write_shapes(data, train=0, val=4, seed=78)
    captions = CaptionConfig(source=str(tmp_path / "captions"), model=str(blip), max_new_tokens=4, batch=3)
    return replace(experiment, source=replace(experiment.source, path=str(data)), captions=captions)


def pairs(experiment: Experiment) -> set[tuple[str, str]]:
    labels = json.loads((Path(experiment.source.path) / "image_labels.json").read_text())
    listed = (Path(experiment.source.path) / "ImageSets/Segmentation/val.txt").read_text().split()
    return {(key, name) for key in listed for name in labels[key]}


def files(experiment: Experiment) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(experiment.captions.source).glob("*.jsonl")}


def list_images(experiment: Experiment, *names: str) -> None:
    (Path(experiment.source.path) / "ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")


def test_every_pair_gets_one_caption_once(captioned: Experiment, one_rank: Rank) -> None:
    assert write_captions(captioned, one_rank).written == len(pairs(captioned))
    captions = load_captions(captioned.captions.source)
    assert set(captions) == pairs(captioned)
    assert all(text.startswith(f"a photograph of {name}") for (_, name), text in captions.items())
    before = files(captioned)
    shutil.rmtree(captioned.captions.model)  # the second run does not even load it
    assert write_captions(captioned, one_rank).written == 0
    assert files(captioned) == before


def test_only_new_images_are_captioned(captioned: Experiment, one_rank: Rank) -> None:
    list_images(captioned, "val_000001", "val_000003")
    first = write_captions(captioned, one_rank).written
    before = files(captioned)
    list_images(captioned, "val_000001", "val_000002", "val_000003", "val_000004")
    second = write_captions(captioned, one_rank).written
    assert first + second == len(pairs(captioned))
    after = files(captioned)
    assert before.items() <= after.items()
    assert sum(data.count(b"\n") for data in after.values()) == len(pairs(captioned))


def test_a_class_that_an_image_gains_later(captioned: Experiment, one_rank: Rank) -> None:
    """The image's old caption stays, although both files begin with the same image."""
    labels = Path(captioned.source.path) / "labels.json"
    labelled = replace(captioned, source=replace(captioned.source, labels=str(labels)))
    list_images(captioned, "val_000001")
    for names, total in ((["star"], 1), (["star", "heart"], 2)):
        labels.write_text(json.dumps({"val_000001": names}))
        assert write_captions(labelled, one_rank).written == 1
        assert len(load_captions(labelled.captions.source)) == total


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_images(captioned: Experiment, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one rank has written before another has looked what is missing; the last one tells of all."""
    monkeypatch.setattr(caption, "IMAGES_PER_FILE", 1)
    (Path(captioned.source.path) / "JPEGImages/val_000001.jpg").write_bytes(b"")
    readable = {pair for pair in pairs(captioned) if pair[0] != "val_000001"}
    ranks = [Rank(index, world, world, torch.device("cpu"), run=f"of-{world}") for index in range(world)]
    *others, last = [write_captions(captioned, rank) for rank in ranks]
    assert others == [None] * (world - 1)
    assert last.written == len(readable)
    assert list(last.statuses.values()) == [1]
    assert set(load_captions(captioned.captions.source)) == pairs(captioned)
    assert [write_captions(captioned, rank) is None for rank in ranks] == [*[True] * (world - 1), False]


def test_cams_take_the_captions(captioned: Experiment, one_rank: Rank) -> None:
    write_captions(captioned, one_rank)
    with_captions = write_labels(captioned, one_rank)
    without = write_labels(replace(captioned, out=f"{captioned.out}-none", captions=CaptionConfig()), one_rank)
    assert with_captions is not None
    assert without is not None
    assert with_captions.samples == without.samples == 4
    shards = [Path(out) / "cams/cams-000000.tar" for out in (captioned.out, f"{captioned.out}-none")]
    assert shards[0].read_bytes() != shards[1].read_bytes()
    changed = replace(captioned, captions=CaptionConfig())
    with pytest.raises(OutputError, match="captions: given -> none"):
        write_labels(changed, one_rank)


def test_an_image_that_cannot_be_read(captioned: Experiment, one_rank: Rank) -> None:
    image = Path(captioned.source.path) / "JPEGImages/val_000002.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    bad = {pair for pair in pairs(captioned) if pair[0] == "val_000002"}
    assert write_captions(captioned, one_rank).written == len(pairs(captioned)) - len(bad)
    assert {pair for pair, text in load_captions(captioned.captions.source).items() if not text} == bad
    again = write_captions(captioned, one_rank)
    assert again.statuses == {"truncated": 1}
    assert again.exit_status == 3
    assert "1 images failed" in again.lines()[-1]
    (failed,) = find_failures(Folder(captioned.captions.source))
    assert failed[0] == "captions"
    assert (failed[1].key, failed[1].status) == ("val_000002", "truncated")
    summary = write_labels(captioned, one_rank)
    assert summary is not None
    assert summary.statuses == {"ok": 3, "truncated": 1}
    image.write_bytes(whole)
    assert write_captions(captioned, one_rank).written == len(bad)
    assert find_failures(Folder(captioned.captions.source)) == []
    with pytest.raises(OutputError, match=r"inputs\.sha256: .*\n.*\n.*add `retry_failed`"):
        write_labels(captioned, one_rank)
    retried = write_labels(captioned, one_rank, retry_failed=True)
    assert retried is not None
    assert retried.statuses == {"ok": 4}
    entries = [Ledger(Folder(f"{captioned.out}/cams"), "cams").entry(number) for number in range(2)]
    assert all(entry is not None and not entry.failures for entry in entries)


def test_missing_captions_are_an_error(captioned: Experiment, one_rank: Rank) -> None:
    list_images(captioned, "val_000001")
    write_captions(captioned, one_rank)
    list_images(captioned, "val_000001", "val_000002")
    with pytest.raises(SourceError, match=r"lacks \d of \d captions, the first .* of 'val_000002'"):
        write_labels(captioned, one_rank)


@pytest.mark.parametrize("target", ["none", "captions.jsonl"])
def test_the_folder_must_be_named(captioned: Experiment, one_rank: Rank, target: str) -> None:
    unnamed = replace(captioned, captions=replace(captioned.captions, source=target))
    with pytest.raises(SettingError, match=r"`captions\.source`"):
        write_captions(unnamed, one_rank)


def test_no_captioner_there(captioned: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    absent = replace(captioned, captions=replace(captioned.captions, model=str(tmp_path / "empty")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"`captions\.model`"):
        write_captions(absent, one_rank)
