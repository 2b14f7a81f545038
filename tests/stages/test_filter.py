import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pseudolabel.cli import main
from pseudolabel.config import CaptionConfig, Experiment, FilterConfig
from pseudolabel.errors import OutputError, SettingError, SourceError
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.dataset import write_shapes
from pseudolabel.sources.source import open_source
from pseudolabel.stages.filter import score_classes, true_classes, write_classes
from pseudolabel.stages.label import write_labels
from pseudolabel.text.category_filter import CategoryFilter
from pseudolabel.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("shapes")


@pytest.fixture
def filtered(experiment: Experiment) -> Experiment:
    """The experiment with all three models that ship."""
    return replace(
        experiment,
        captions=CaptionConfig(model="shapes", batch=8, max_new_tokens=10),
        filter=FilterConfig(clip="shapes", spacy="shapes", image_threshold=0.6, nouns="synonyms"),
    )


@pytest.fixture
def own_data(filtered: Experiment, tmp_path: Path) -> Experiment:
    """The same on images that a test may spoil."""
    write_shapes(tmp_path / "data", train=0, val=3, seed=79)
    return replace(filtered, source=replace(filtered.source, path=str(tmp_path / "data")))


def read_lines(experiment: Experiment) -> list[dict]:
    files = sorted(Path(experiment.out, "filter").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_every_image_gets_the_filters_classes(filtered: Experiment, one_rank: Rank) -> None:
    summary = write_classes(filtered, one_rank)
    assert summary is not None
    assert (summary.samples, summary.shards, summary.exit_status) == (5, 3, 0)
    source = open_source(filtered.source, VOCABULARY)
    lines = read_lines(filtered)
    assert [line["key"] for line in lines] == [entry.key for entry in source.entries]
    guesser = CategoryFilter(filtered.filter, filtered.captions, one_rank.device)
    for entry, line in zip(source.entries, lines, strict=True):
        guess = guesser([source.read(entry).image], VOCABULARY)[0]
        assert line["classes"] == [VOCABULARY.names[index] for index in guess.classes]
        assert line["by_image"] == [VOCABULARY.names[index] for index in guess.by_image]
        assert line["by_nouns"] == [VOCABULARY.names[index] for index in guess.by_nouns]
        assert (line["captions"], line["nouns"]) == (list(guess.captions), list(guess.nouns))
        assert line["image_scores"] == pytest.approx(guess.image_scores, abs=2e-4)


@pytest.mark.slow
def test_finished_files_are_kept_and_nothing_is_loaded(filtered: Experiment, one_rank: Rank) -> None:
    write_classes(filtered, one_rank)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(filtered.out).rglob("*.jsonl")}
    gone = Path(filtered.out, "filter/filter-000001.jsonl")
    gone.unlink()
    assert write_classes(filtered, one_rank) is not None
    assert gone.read_bytes() == files.pop(gone)[0]
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == before for path, before in files.items())


@pytest.mark.slow
def test_ranks_split_the_images(filtered: Experiment, one_rank: Rank) -> None:
    write_classes(filtered, one_rank)
    shared = replace(filtered, out=f"{filtered.out}-shared")
    summaries = [write_classes(shared, Rank(index, 2, 2, torch.device("cpu"))) for index in range(2)]
    assert summaries[0] is None
    assert summaries[1] is not None
    assert read_lines(shared) == read_lines(filtered)


@pytest.mark.slow
def test_other_settings_are_refused(filtered: Experiment, one_rank: Rank) -> None:
    write_classes(filtered, one_rank)
    changed = replace(filtered, filter=replace(filtered.filter, image_threshold=0.7))
    with pytest.raises(OutputError, match=r"filter\.image_threshold: 0\.6 -> 0\.7"):
        write_classes(changed, one_rank)


@pytest.mark.slow
def test_labels_are_not_used(own_data: Experiment, one_rank: Rank) -> None:
    """Not even where there are none."""
    write_classes(own_data, one_rank)
    for path in Path(own_data.source.path).rglob("*.xml"):
        path.unlink()
    unlabelled = replace(own_data, out=f"{own_data.out}-unlabelled", source=replace(own_data.source, labels="none"))
    write_classes(unlabelled, one_rank)
    assert read_lines(unlabelled) == read_lines(own_data)


@pytest.mark.slow
def test_an_image_that_cannot_be_read(own_data: Experiment, one_rank: Rank) -> None:
    image = Path(own_data.source.path) / "JPEGImages/val_000002.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    summary = write_classes(own_data, one_rank)
    assert summary is not None
    assert summary.statuses == {"ok": 2, "truncated": 1}
    assert [line["key"] for line in read_lines(own_data)] == ["val_000001", "val_000003"]
    image.write_bytes(whole)
    retried = write_classes(own_data, one_rank, retry_failed=True)
    assert retried is not None
    assert retried.statuses == {"ok": 3}
    assert [line["key"] for line in read_lines(own_data)] == ["val_000001", "val_000002", "val_000003"]


@pytest.mark.slow
def test_the_labelling_stage_uses_the_classes(filtered: Experiment, one_rank: Rank) -> None:
    write_classes(filtered, one_rank)
    classes = {line["key"]: line["classes"] for line in read_lines(filtered)}
    zero_shot = replace(filtered.source, labels=f"{filtered.out}/filter", unlabelled="background")
    found = {entry.key: entry.classes for entry in open_source(zero_shot, VOCABULARY).entries}
    assert {key: [VOCABULARY.names[index] for index in indices] for key, indices in found.items()} == classes
    summary = write_labels(replace(filtered, source=zero_shot), one_rank)
    assert summary is not None
    assert summary.statuses == {"ok": 5}


def test_scores_against_the_sources_own_labels(filtered: Experiment, one_rank: Rank) -> None:
    write_classes(filtered, one_rank)
    truth = true_classes(filtered)
    scores = score_classes(filtered, truth)
    lines = {line["key"]: line for line in read_lines(filtered)}
    for rule, field in (("image", "by_image"), ("nouns", "by_nouns"), ("union", "classes")):
        guessed = {(key, name) for key, line in lines.items() for name in line[field]}
        true = {(key, VOCABULARY.names[index]) for key, classes in truth.items() for index in classes}
        assert scores[rule].micro[:2] == (len(guessed & true) / len(guessed), len(guessed & true) / len(true))
    metrics = json.loads(Path(filtered.out, "metrics.json").read_text())["filter"]
    assert metrics["union"]["recall"] == scores["union"].micro[1] > 0.5
    assert set(metrics["image"]["per_class"]) == set(VOCABULARY.names[1:])
    assert (metrics["images"], metrics["split"]) == (5, "val")
    assert metrics["settings"]["nouns"] == "synonyms"


def test_labels_to_score_against(own_data: Experiment, one_rank: Rank) -> None:
    source = own_data.source
    assert len(true_classes(own_data)) == 3
    for labels in ("none", f"{own_data.out}/filter", f"{own_data.out}/filter/"):
        assert true_classes(replace(own_data, source=replace(source, labels=labels))) == {}
    for path in Path(source.path).rglob("*.xml"):
        path.write_text("<annotation/>")
    assert true_classes(own_data) == {}
    with pytest.raises(SourceError, match="label"):
        true_classes(replace(own_data, source=replace(source, labels=f"{source.path}/absent.json")))


def test_scores_need_the_files(filtered: Experiment) -> None:
    with pytest.raises(SourceError, match=r"no filtered images in .*filter'; run 'pseudolabel filter' first"):
        score_classes(filtered, {"val_000001": (1,)})


def test_settings_are_checked_first(filtered: Experiment, one_rank: Rank) -> None:
    nothing = replace(filtered, filter=replace(filtered.filter, image="none", nouns="none"))
    with pytest.raises(SettingError, match=r"`filter\.image` none"):
        write_classes(nothing, one_rank)
    assert not Path(filtered.out).exists()


def test_images_in_a_plain_folder(filtered: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    """As a user has them: below a folder whose name is no class."""
    (tmp_path / "photos/holiday").mkdir(parents=True)
    Image.new("RGB", (20, 30), "green").save(tmp_path / "photos/holiday/one.jpg")
    source = replace(filtered.source, kind="folder", path=str(tmp_path / "photos"))
    summary = write_classes(replace(filtered, source=source), one_rank)
    assert summary is not None
    assert summary.statuses == {"ok": 1}
    assert read_lines(filtered)[0]["key"] == "holiday/one"


@pytest.mark.slow
def test_the_command_prints_the_scores(filtered: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["filter", "--config", "shapes", "--source.path", filtered.source.path, "--out", filtered.out]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Filtered classes on val, 5 labelled images" in printed
    recall = json.loads(Path(filtered.out, "metrics.json").read_text())["filter"]["union"]["recall"]
    (row,) = (line.split() for line in printed.splitlines() if line.split()[:1] == ["union"])
    assert row[3] == f"{100 * recall:.1f}"
    assert main([*arguments, "--source.labels", "none"]) == 0
    assert "labelled images" not in capsys.readouterr().out
