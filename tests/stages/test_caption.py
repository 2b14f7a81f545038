import json
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
from pseudolabel.stages.caption import write_captions
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.summary import Summary
from pseudolabel.text.captions import load_captions
from tests.plain.blip import tiny_blip


@pytest.fixture
def captioned(experiment: Experiment, tmp_path: Path) -> Experiment:
    """The experiment with a data set of its own and a tiny BLIP."""
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


def captioned_now(experiment: Experiment, rank: Rank, retry_failed: bool = False) -> Summary:
    summary = write_captions(experiment, rank, retry_failed)
    assert summary is not None
    return summary


def lines(experiment: Experiment) -> list[tuple[str, str]]:
    """Key and class of every line of every file, repeated ones included."""
    found = [json.loads(line) for data in files(experiment).values() for line in data.splitlines()]
    return [(line["key"], line["class"]) for line in found]


def test_every_pair_gets_one_caption_once(captioned: Experiment, one_rank: Rank) -> None:
    summary = captioned_now(captioned, one_rank)
    assert (summary.kind, summary.statuses, summary.exit_status) == ("captions", {"ok": 4}, 0)
    captions = load_captions(captioned.captions.source)
    assert set(captions) == pairs(captioned)
    assert len(lines(captioned)) == len(captions)
    assert all(text.startswith(f"a photograph of {name}") for (_, name), text in captions.items())
    assert sorted(files(captioned)) == ["captions-000000.jsonl", "captions-000001.jsonl"]
    entry = Path(captioned.captions.source) / "captions-000000.json"
    before = entry.read_bytes()  # tells how long the unit took
    assert captioned_now(captioned, one_rank).samples == 4
    assert entry.read_bytes() == before


def test_a_stopped_run_resumes_with_equal_bytes(captioned: Experiment, one_rank: Rank) -> None:
    units = replace(captioned, work=replace(captioned.work, unit=1))
    captioned_now(units, one_rank)
    before = files(units)
    folder = Path(units.captions.source)
    (folder / "captions-000002.jsonl").unlink()
    (folder / "captions-000003.json").unlink()
    (folder / "index.json").unlink()
    kept = (folder / "captions-000000.json").read_bytes()
    assert captioned_now(units, one_rank).samples == 4
    assert files(units) == before
    assert (folder / "captions-000000.json").read_bytes() == kept


def test_only_new_images_are_captioned(captioned: Experiment, one_rank: Rank) -> None:
    list_images(captioned, "val_000001", "val_000003")
    assert captioned_now(captioned, one_rank).samples == 2
    (before,) = files(captioned).values()
    list_images(captioned, "val_000001", "val_000002", "val_000003", "val_000004")
    assert captioned_now(captioned, one_rank).samples == 2
    after = files(captioned)
    assert before in after.values()
    assert sorted(lines(captioned)) == sorted(pairs(captioned))
    assert captioned_now(captioned, one_rank).samples == 2
    assert files(captioned) == after


def test_a_shorter_list_keeps_all_captions(captioned: Experiment, one_rank: Rank) -> None:
    captioned_now(captioned, one_rank)
    written = pairs(captioned)
    list_images(captioned, "val_000001")
    assert write_captions(captioned, one_rank) is None
    assert set(load_captions(captioned.captions.source)) == written


def test_a_class_that_is_added_later(captioned: Experiment, one_rank: Rank) -> None:
    """The image's first caption stays."""
    labels = Path(captioned.source.path) / "labels.json"
    labelled = replace(captioned, source=replace(captioned.source, labels=str(labels)))
    list_images(captioned, "val_000001")
    for names in (["star"], ["star", "heart"]):
        labels.write_text(json.dumps({"val_000001": names}))
        assert captioned_now(labelled, one_rank).samples == 1
        assert sorted(lines(labelled)) == sorted(("val_000001", name) for name in names)


def test_captions_of_other_files_are_kept(
    captioned: Experiment, one_rank: Rank, caplog: pytest.LogCaptureFixture
) -> None:
    """A file by hand, and one of an earlier version with an image that could not be read."""
    own, failed, *_ = sorted(pairs(captioned))
    folder = Path(captioned.captions.source)
    folder.mkdir()
    texts = {"captions-0123456789abcdef.jsonl": (failed, ""), "mine.jsonl": (own, "by hand")}
    for name, ((key, word), text) in texts.items():
        (folder / name).write_text(json.dumps({"key": key, "class": word, "caption": text}) + "\n")
    captioned_now(captioned, one_rank)
    assert sorted(lines(captioned)) == sorted([*pairs(captioned), failed])
    captions = load_captions(str(folder))
    assert captions[own] == "by hand"
    assert captions[failed].startswith("a photograph of")
    written = [{"key": key, "class": word, "caption": text} for (key, word), text in captions.items()]
    other = replace(captioned, captions=replace(captioned.captions, source=f"{folder}-2"))
    Path(other.captions.source).mkdir()
    (Path(other.captions.source) / "all.jsonl").write_text("\n".join(map(json.dumps, written)))
    with caplog.at_level("INFO"):
        assert write_captions(other, one_rank) is None
    assert "every image of" in caplog.text


def test_another_captioner_needs_another_folder(captioned: Experiment, one_rank: Rank) -> None:
    captioned_now(captioned, one_rank)
    longer = replace(captioned, captions=replace(captioned.captions, max_new_tokens=5))
    list_images(captioned, "val_000001")
    with pytest.raises(OutputError, match=r"max_new_tokens: 4 -> 5(.|\n)*another `captions\.source`"):
        write_captions(longer, one_rank)
    assert set(load_captions(captioned.captions.source)) >= pairs(captioned)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_split_the_images(captioned: Experiment, world: int) -> None:
    """Each is assigned units; the last one gives the summary of all."""
    units = replace(captioned, work=replace(captioned.work, unit=1))
    (Path(captioned.source.path) / "JPEGImages/val_000001.jpg").write_bytes(b"")
    readable = {pair for pair in pairs(captioned) if pair[0] != "val_000001"}
    ranks = [Rank(index, world, world, torch.device("cpu"), run=f"of-{world}") for index in range(world)]
    *others, last = [write_captions(units, rank) for rank in ranks]
    assert others == [None] * (world - 1)
    assert last is not None
    assert (last.samples, last.failed) == (3, 1)
    assert set(load_captions(captioned.captions.source)) == readable


@pytest.mark.slow
def test_cams_use_the_captions(captioned: Experiment, one_rank: Rank) -> None:
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


@pytest.mark.slow
def test_an_image_that_cannot_be_read(captioned: Experiment, one_rank: Rank) -> None:
    image = Path(captioned.source.path) / "JPEGImages/val_000002.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    bad = {pair for pair in pairs(captioned) if pair[0] == "val_000002"}
    captioned_now(captioned, one_rank)
    assert set(load_captions(captioned.captions.source)) == pairs(captioned) - bad
    again = captioned_now(captioned, one_rank)
    assert again.statuses == {"ok": 3, "truncated": 1}
    assert again.exit_status == 3
    assert "3 samples done, 1 failed" in again.notes()[-1]
    (failed,) = find_failures(Folder(captioned.captions.source))
    assert failed[0] == "captions"
    assert (failed[1].key, failed[1].status) == ("val_000002", "truncated")
    summary = write_labels(captioned, one_rank)
    assert summary is not None
    assert summary.statuses == {"ok": 3, "truncated": 1}
    image.write_bytes(whole)
    assert captioned_now(captioned, one_rank).failed == 1
    assert captioned_now(captioned, one_rank, retry_failed=True).statuses == {"ok": 4}
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
def test_the_folder_is_required(captioned: Experiment, one_rank: Rank, target: str) -> None:
    unnamed = replace(captioned, captions=replace(captioned.captions, source=target))
    with pytest.raises(SettingError, match=r"`captions\.source`"):
        write_captions(unnamed, one_rank)


def test_a_missing_captioner(captioned: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    absent = replace(captioned, captions=replace(captioned.captions, model=str(tmp_path / "empty")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"`captions\.model`"):
        write_captions(absent, one_rank)
