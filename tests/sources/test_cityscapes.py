from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.data_sets import CITYSCAPES


def write(root: Path, masks: dict[str, list[int]], split: str = "val") -> Path:
    """Images of one row in folders of cities, and their label ids."""
    for name, values in masks.items():
        city = name.partition("_")[0]
        for path, row in (
            (root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", [0] * len(values)),
            (root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", values),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([row], np.uint8)).save(path)
    return root


def open_cityscapes(root: Path, vocabulary: str = "cityscapes27", **settings: str) -> Source:
    config = SourceConfig(**{"kind": "cityscapes", "path": str(root), "split": "val", **settings})
    return open_source(config, load_vocabulary(vocabulary))


def test_ids_become_27_classes_and_void_is_ignored(tmp_path: Path) -> None:
    assert load_vocabulary("cityscapes27").names[1:] == tuple(CITYSCAPES[7:])
    source = open_cityscapes(write(tmp_path, {"ulm_000000_000019": [*range(34), 255]}))
    assert [entry.key for entry in source.entries] == ["ulm_000000_000019"]
    truth = source.ground_truth(source.entries[0], (1, 35))
    assert truth.labels.tolist() == [[255] * 7 + list(range(1, 28)) + [255]]


def test_cities_and_splits(tmp_path: Path) -> None:
    write(tmp_path, {"ulm_000000_000019": [7], "aachen_000001_000019": [8]})
    write(tmp_path, {"bonn_000000_000019": [9]}, "train")
    (tmp_path / "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.json").write_text("{}")
    keys = [entry.key for entry in open_cityscapes(tmp_path).entries]
    assert keys == ["aachen_000001_000019", "ulm_000000_000019"]
    source = open_cityscapes(tmp_path, split="train", labels="masks")
    assert [(entry.key, entry.classes) for entry in source.entries] == [("bonn_000000_000019", (3,))]


def test_a_vocabulary_of_fewer_classes(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("background: false\nclasses: [car, road]")
    source = open_cityscapes(write(tmp_path / "data", {"ulm_0_0": [26, 7, 8, 0]}), str(tmp_path / "few.yaml"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[1, 2, 255, 255]]


def test_masks_of_ones_own_are_named_by_key(tmp_path: Path) -> None:
    write(tmp_path, {"ulm_0_0": [7, 8]})
    (tmp_path / "mine").mkdir()
    Image.fromarray(np.array([[5, 6]], np.uint8)).save(tmp_path / "mine/ulm_0_0.png")
    source = open_cityscapes(tmp_path, masks=str(tmp_path / "mine"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[5, 6]]


def test_the_shipped_experiment_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("cityscapes")
    write(tmp_path / "cityscapes", {"ulm_000000_000019": [7]})
    monkeypatch.chdir(tmp_path)
    (entry,) = (source := open_source(experiment.source, load_vocabulary(experiment.vocabulary))).entries
    assert set(np.unique(source.ground_truth(entry).labels)) == {1}
    assert source.read(entry).key == entry.key


def test_what_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    place = r"leftImg8bit_trainvaltest\.zip and gtFine_trainvaltest\.zip of https://www\.cityscapes-dataset\.com"
    with pytest.raises(SourceError, match=rf"no folder '.*/leftImg8bit/val'; .*{place}"):
        open_cityscapes(tmp_path)
    write(tmp_path, {"ulm_0_0": [7, 34]})
    with pytest.raises(SourceError, match=r"no class 'aeroplane' .* `vocabulary` cityscapes27"):
        open_cityscapes(tmp_path, "voc")
    source = open_cityscapes(tmp_path)
    with pytest.raises(SampleError, match="no class of value 34"):
        source.ground_truth(source.entries[0])
    masks = tmp_path / "gtFine/val/ulm/ulm_0_0_gtFine_labelIds.png"
    masks.unlink()
    with pytest.raises(SampleError, match="no file") as caught:
        source.ground_truth(source.entries[0])
    assert caught.value.status == "missing"
    masks.parent.rmdir()
    masks.parent.parent.rmdir()
    with pytest.raises(SourceError, match=r"no folder '.*/gtFine/val'"):
        open_cityscapes(tmp_path)
