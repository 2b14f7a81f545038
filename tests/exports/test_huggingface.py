"""Parquet files and the data set card, read by `datasets.load_dataset` from the folder alone."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import yaml

import pseudolabel as pl
from pseudolabel.exports.sample import split_of
from pseudolabel.exports.units import HIDDEN
from tests.e2e.commands import samples
from tests.exports.conftest import NAMES, members
from tests.shards.samples import write_shard


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(folder: Path) -> datasets.DatasetDict:
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


def test_load_dataset_gets_images_masks_and_names(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf")
    data = load(tmp_path / "hf")
    assert list(data) == ["train"]
    rows = {row["key"]: row for row in data["train"]}
    assert rows.keys() == drawn.keys()
    for key, labels in drawn.items():
        np.testing.assert_array_equal(np.asarray(rows[key]["mask"]), labels)
        assert rows[key]["mask"].mode == "L"
        assert (rows[key]["image"].mode, rows[key]["image"].size) == ("RGB", labels.shape[::-1])
        assert rows[key]["classes"] == [label for label in np.unique(labels).tolist() if label not in (0, 255)]
        assert rows[key]["confidence"] == 0.75
    assert data["train"].features["classes"].feature.names == list(NAMES)


def test_images_are_the_shards_own_bytes(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf")
    rows = [
        row for file in (tmp_path / "hf" / "data").iterdir() for row in pyarrow.parquet.read_table(file).to_pylist()
    ]
    stored = {row["key"]: row["image"]["bytes"] for row in rows}
    assert stored == {key: members["jpg"] for key, members in samples(run / "masks").items()}


def test_splits(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf", split=0.5)
    data = load(tmp_path / "hf")
    assert {split: set(data[split]["key"]) for split in data} == {
        name: {key for key in drawn if split_of(key, 0.5) == split}
        for name, split in (("train", "train"), ("validation", "val"))
    }


def test_the_card_says_what_the_data_are(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf", split=0.5)
    text = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "validation", "path": "data/validation-*.parquet"},
    ]
    assert "| 3 | Käse, alt | `#808000` |" in text
    assert "| 255 | ignore |" in text
    assert "class_weight: 1.21" in text  # the options of the run
    assert "No person drew the masks" in text
    assert "license:" in text


def test_a_repeat_writes_no_data_again(run: Path, tmp_path: Path) -> None:
    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "hf" / "data").iterdir()}

    pl.export(run, to="hf", folder=tmp_path / "hf")
    before = times()
    assert len(before) == 3
    assert pl.export(run, to="hf", folder=tmp_path / "hf").written == 0
    assert times() == before
    (tmp_path / "hf" / HIDDEN / "masks-000001.jsonl").unlink()
    assert pl.export(run, to="hf", folder=tmp_path / "hf").written == 2


def test_a_file_that_somebody_changed_stays(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf")
    changed = tmp_path / "hf" / "data" / "train-masks-000002.parquet"
    changed.write_bytes(b"mine")
    write_shard(run / "masks" / "masks-000002.tar", {"new": members("new", drawn["ring"], 4)})
    with pytest.raises(pl.UserError, match=r"masks-000002\.parquet' was not written by this export, or was changed"):
        pl.export(run, to="hf", folder=tmp_path / "hf")
    assert changed.read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "hf" / "data").iterdir() if path.name.startswith(".")] == []


def test_many_rows_become_several_groups(run: Path, tmp_path: Path, drawn) -> None:
    write_shard(run / "masks" / "masks-000003.tar", {f"more {n}": members("", drawn["ring"], n) for n in range(70)})
    pl.export(run, to="hf", folder=tmp_path / "hf")
    file = pyarrow.parquet.ParquetFile(tmp_path / "hf" / "data" / "train-masks-000003.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [64, 6]
    assert load(tmp_path / "hf")["train"].num_rows == 76
