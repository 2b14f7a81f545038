"""The table of what is known of every mask: written with the index, again when a shard or the table is gone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.errors import SettingError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members
from pseudolabel.records import LabelMap
from pseudolabel.shards.confidence import judge
from pseudolabel.shards.dataset import ShardDataset
from pseudolabel.shards.order import choose_keys
from pseudolabel.shards.sample import encode_mask
from pseudolabel.shards.scores import SCORES, Confidence, read_confidences
from tests.shards.runs import write_run
from tests.shards.samples import name, numbered, write_masks


def sample(number: int) -> Members:
    labels = np.zeros((4, 5), np.uint8)
    labels[1, : number + 1] = 3
    confidence = np.where(labels == 3, np.float32(0.5), np.float32(1))
    mask = LabelMap(name(number), labels, confidence)
    fields = {"key": name(number), "classes": [3], "names": ['a "star", red'], "height": 4, "width": 5}
    return encode_mask(b"jpeg", mask, fields | judge(mask, (3,)))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / SCORES).open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_image_and_class(tmp_path: Path) -> None:
    write_masks(tmp_path, [2, 0, 1], sample)
    found = rows(tmp_path)
    assert [(row["key"], row["class"]) for row in found] == [(name(n), c) for n in range(3) for c in "03"]
    common = {"height": "4", "width": "5", "ignored": "0.0", "image_confidence": "0.75", "source": "machine"}
    assert found[3] == {
        "key": name(1),
        **common,
        "class": "3",
        "name": 'a "star", red',
        "confidence": "0.5",
        "unsure": "0.0",
        "area": "2",
        "pieces": "1",
        "border": "1",
    }
    assert found[2]["name"] == "background"


def test_confidences_of_images(tmp_path: Path) -> None:
    write_masks(tmp_path, [2, 1], sample)
    assert list(read_confidences(Folder(str(tmp_path)))) == [Confidence(name(n), 0.75) for n in range(3)]


def test_without_probabilities_a_confidence_is_empty(tmp_path: Path) -> None:
    def unsure(number: int) -> Members:
        mask = LabelMap(name(number), np.zeros((2, 2), np.uint8))
        fields = {"key": name(number), "classes": [], "names": [], "height": 2, "width": 2}
        return encode_mask(b"jpeg", mask, fields | judge(mask, ()))

    write_masks(tmp_path, [1], unsure)
    assert list(read_confidences(Folder(str(tmp_path)))) == [Confidence(name(0), None)]
    assert rows(tmp_path)[0]["confidence"] == ""


def of_confidence(number: int) -> Members:
    """Masks whose confidence falls to image 3 and rises again."""
    value = np.float32(0.5 + abs(number - 3) / 10)
    mask = LabelMap(name(number), np.zeros((4, 5), np.uint8), np.full((4, 5), value))
    fields = {"key": name(number), "classes": [], "names": [], "height": 4, "width": 5}
    return encode_mask(b"jpeg", mask, fields | judge(mask, ()))


def test_the_least_confident_images_are_left_out(tmp_path: Path) -> None:
    write_masks(tmp_path, [3, 4], of_confidence)
    whole = ShardDataset(tmp_path)
    some = ShardDataset(tmp_path, leave_out=0.5)  # 3 of 7
    assert [some.read(number).key for number in range(len(some))] == [name(number) for number in (0, 1, 5, 6)]
    assert some.read(-1).key == name(6)
    assert len(whole) == len(ShardDataset(tmp_path, leave_out=0.1)) == 7
    assert len(ShardDataset([f"{tmp_path}/masks-000001.tar"], leave_out=0.3)) == 3
    with pytest.raises(SettingError, match=r"`leave_out` 1\.0"):
        ShardDataset(tmp_path, leave_out=1.0)


def test_without_confidences_none_can_be_left_out(tmp_path: Path) -> None:
    write_masks(tmp_path, [2])
    with pytest.raises(ShardError, match=r"'image_000000' of .*masks-000000\.tar' has none in"):
        ShardDataset(tmp_path, leave_out=0.5)


def test_keys_by_confidence(tmp_path: Path) -> None:
    folder = Folder(str(write_masks(tmp_path, [3, 4], of_confidence)))
    assert choose_keys(folder, 2, "first") == ()
    assert choose_keys(folder, 2, "worst") == [name(3), name(2)]
    assert choose_keys(folder, 2, "best") == [name(0), name(6)]
    assert choose_keys(folder, 99, "worst")[-1] == name(6)
    chosen = choose_keys(folder, 3, "random")
    assert chosen == choose_keys(folder, 3, "random")
    assert len(set(chosen)) == 3
    with pytest.raises(ShardError, match="so none is worst"):
        choose_keys(Folder(str(write_masks(tmp_path / "older", [1]))), 1, "worst")


def test_shards_of_earlier_versions_have_no_rows(tmp_path: Path) -> None:
    write_masks(tmp_path, [2])
    assert rows(tmp_path) == []


def test_a_missing_table_is_written_again_and_a_current_one_stays(tmp_path: Path) -> None:
    write_masks(tmp_path, [2, 1], sample)
    first = (tmp_path / SCORES).read_bytes()
    (tmp_path / SCORES).unlink()
    write_masks(tmp_path, [2, 1], sample)
    assert (tmp_path / SCORES).read_bytes() == first
    (tmp_path / SCORES).write_bytes(b"current")
    write_masks(tmp_path, [2, 1], sample)
    assert (tmp_path / SCORES).read_bytes() == b"current"  # the index is the same
    write_masks(tmp_path, [2, 2], sample)
    assert (tmp_path / SCORES).read_bytes().startswith(first)
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert [shard["samples"] for shard in index["shards"]] == [2, 2]


def test_other_kinds_have_no_table(tmp_path: Path) -> None:
    write_run(tmp_path, "cams", numbered([1]))
    assert not (tmp_path / SCORES).exists()


def test_without_a_table_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"scores\.csv.*pseudolabel refine"):
        next(read_confidences(Folder(str(tmp_path))))
    (tmp_path / SCORES).write_text("key,other\na,1\n")
    with pytest.raises(ShardError, match=r"scores\.csv' cannot be read .*remove it"):
        next(read_confidences(Folder(str(tmp_path))))
