"""The classes of shards, from files beside them, compared with a vocabulary."""

import json
from pathlib import Path

import pytest

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.shards.classes import check_vocabulary, recorded_classes, write_classes
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.shard_dataset import ShardDataset
from tests.shards.samples import write_masks

SHAPES = ("background", "circle", "square", "triangle", "star", "cross", "heart")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "masks", [2])


def note(folder: Path, names, name: str = "mine", is_refined: bool = True) -> None:
    """Let the run say that its vocabulary was this one."""
    run = json.loads((folder / "run.json").read_text())
    settings, about = {"vocabulary": {"names": list(names)}}, {"vocabulary": name}
    run["settings"] = {"cams": settings} if is_refined else settings
    run["about"] = {"cams": about} if is_refined else about
    (folder / "run.json").write_text(json.dumps(run))


def label(folder: Path, names) -> None:
    by_value = {str(value): name for value, name in enumerate(names)}
    (folder / "id2label.json").write_text(json.dumps({**by_value, "255": "void"}))


def check(folder: Path, vocabulary: str) -> None:
    check_vocabulary([f"{folder}/masks-000000.tar"], load_vocabulary(vocabulary))


@pytest.mark.parametrize("is_refined", [True, False])
def test_another_vocabulary_is_refused_with_both_names(masks, is_refined):
    note(masks, SHAPES, "shapes", is_refined)
    check(masks, "shapes")
    expected = (
        rf"'{masks}' are of vocabulary 'shapes' of '{masks}/run.json', not of vocabulary 'voc': 7 labels.* has 21"
    )
    with pytest.raises(ShardError, match=expected):
        ShardDataset(str(masks), "voc")


def test_another_order_is_refused(masks):
    note(masks, ("background", "square", "circle", *SHAPES[3:]))
    with pytest.raises(ShardError, match="label 1 is 'square' there, and 'circle' in the vocabulary"):
        check(masks, "shapes")


def test_background_differs_from_unlabelled(masks):
    note(masks, ("unlabelled", *SHAPES[1:]))
    with pytest.raises(ShardError, match="label 0 is 'unlabelled' there, and 'background' in the vocabulary"):
        check(masks, "shapes")


@pytest.mark.parametrize("zero", ["background", "_background_", "void"])
def test_labels_of_others_may_have_other_spellings(masks, zero):
    label(masks, (zero, "Circle", *SHAPES[2:]))
    check(masks, "shapes")
    label(masks, ("circle", *SHAPES[2:]))
    with pytest.raises(ShardError, match=r"are of '.*id2label\.json', not of vocabulary 'shapes': 6 labels with 0"):
        check(masks, "shapes")
    label(masks, ("circle", *SHAPES[2:], zero))
    with pytest.raises(ShardError, match="label 0 is 'circle' there"):
        check(masks, "shapes")


@pytest.mark.parametrize("text", ["[]", '{"0": "background", "2": "circle"}', '{"zero": "background"}', "{"])
def test_an_invalid_file_is_named(masks, text):
    (masks / "id2label.json").write_text(text)
    with pytest.raises(ShardError, match=r"id2label\.json' cannot be read"):
        check(masks, "shapes")


def test_shards_without_recorded_classes_are_read(tmp_path):
    check(tmp_path, "shapes")


def test_regions_without_classes_are_not_masks(masks):
    with pytest.raises(ShardError, match="regions that only tell apart, without classes"):
        check_vocabulary([f"{masks}/segments-000000.tar"], load_vocabulary("shapes"))


def test_classes_are_written_as_they_are_read(tmp_path):
    folder = Folder(str(tmp_path))
    write_classes(folder, SHAPES)
    assert [recorded.names for recorded in recorded_classes(folder)] == [SHAPES]
    assert json.loads((tmp_path / "id2label.json").read_text())["255"] == "ignore"
    write_classes(folder, ("background", "Käse"))
    assert recorded_classes(folder)[0].names == ("background", "Käse")


@pytest.mark.parametrize("name", ["id2label.json", "README.md"])
def test_files_of_others_stay(tmp_path, name):
    (tmp_path / name).write_text("mine")
    write_classes(Folder(str(tmp_path)), SHAPES)
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"id2label.json", "README.md", ".pseudolabel.manifest"}
