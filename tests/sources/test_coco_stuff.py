import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.sources.coco_stuff import SUPER_CATEGORIES
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.data_sets import COCO_27, super_category

LIST = "val2017/Coco164kFull_Stuff_Coarse_7"


def write(
    root: Path, maps: dict[str, list[int]], images: str = "val2017", folder: str = "stuffthingmaps/val2017"
) -> Path:
    """Images of one row and their pixel maps, grey PNGs as COCO-Stuff's."""
    for name, values in maps.items():
        for path, row in ((root / images / f"{name}.jpg", [0] * len(values)), (root / folder / f"{name}.png", values)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([row], np.uint8)).save(path)
    return root


def open_stuff(root: Path, split: str = "val2017", vocabulary: str = "coco27", **settings: str) -> Source:
    return open_source(
        SourceConfig(kind="coco_stuff", path=str(root), split=split, **settings), load_vocabulary(vocabulary)
    )


def test_every_value_has_the_super_category_of_its_class(tmp_path: Path) -> None:
    assert load_vocabulary("coco27").names[1:] == tuple(COCO_27)
    values = list(range(182))
    assert sorted(value for values in SUPER_CATEGORIES.values() for value in values) == values
    source = open_stuff(write(tmp_path, {"000000000139": [*values, 255]}))
    truth = source.ground_truth(source.entries[0], (1, 183))
    assert truth.labels.dtype == np.uint8
    assert truth.labels[0, :-1].tolist() == [COCO_27.index(super_category(value)) + 1 for value in values]
    assert truth.labels[0, -1] == 255
    assert source.entries[0].classes == ()


def test_the_curated_list(tmp_path: Path) -> None:
    write(tmp_path, {"000000000139": [0], "000000000285": [1], "000000000632": [2]})
    (tmp_path / "curated/val2017").mkdir(parents=True)
    (tmp_path / "curated" / f"{LIST}.txt").write_text("000000000632\n000000000139\n")
    source = open_stuff(tmp_path, LIST)
    assert [entry.key for entry in source.entries] == ["000000000139", "000000000632"]
    assert len(open_stuff(tmp_path).entries) == 3
    with pytest.raises(SourceError, match=r"no file '.*none\.txt'"):
        open_stuff(tmp_path, "val2017/none")


def test_the_layout_of_picie_and_stego(tmp_path: Path) -> None:
    source = open_stuff(write(tmp_path, {"a": [0, 181]}, "images/val2017", "annotations/val2017"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[10, 25]]


def test_labels_from_the_maps(tmp_path: Path) -> None:
    source = open_stuff(write(tmp_path, {"a": [0, 181, 255, 0], "b": [255]}), labels="masks")
    assert [entry.classes for entry in source.entries] == [(10, 25), ()]


def test_workers_read_the_same(tmp_path: Path) -> None:
    source = open_stuff(write(tmp_path, {"a": [7, 105]}))
    sent = pickle.loads(pickle.dumps(source))
    assert sent.ground_truth(sent.entries[0]).labels.tolist() == [[12, 24]]


def test_classes_that_the_user_leaves_out(tmp_path: Path) -> None:
    """They are background where the vocabulary has it, and ignored where it has not."""
    write(tmp_path / "data", {"a": [156, 0, 170, 255]})
    (tmp_path / "sky.yaml").write_text("classes: [wall, sky]")
    source = open_stuff(tmp_path / "data", vocabulary=str(tmp_path / "sky.yaml"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[2, 0, 1, 255]]
    (tmp_path / "sky.yaml").write_text("background: false\nclasses: [wall, sky]")
    source = open_stuff(tmp_path / "data", vocabulary=str(tmp_path / "sky.yaml"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[2, 255, 1, 255]]


def test_masks_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1, 27]}, folder="mine")
    source = open_stuff(tmp_path, masks=str(tmp_path / "mine"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[1, 27]]


def test_the_shipped_experiment_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("coco_stuff27")
    write(tmp_path / "coco", {"000000000139": [71], "000000000285": [1]})
    (tmp_path / "coco/curated/val2017").mkdir(parents=True)
    (tmp_path / "coco/curated" / f"{LIST}.txt").write_text("000000000139\n")
    monkeypatch.chdir(tmp_path)
    (entry,) = (source := open_source(experiment.source, load_vocabulary(experiment.vocabulary))).entries
    assert set(np.unique(source.ground_truth(entry).labels)) == {1}
    assert source.read(entry).key == entry.key


def test_what_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*/val2017'; unpack .*zips/val2017\.zip in `source\.path`"):
        open_stuff(tmp_path)
    write(tmp_path, {"a": [0]}, folder="elsewhere")
    with pytest.raises(SourceError, match=r"no folder '.*/stuffthingmaps/val2017'; unpack stuffthingmaps_trainval2017"):
        open_stuff(tmp_path)
    with pytest.raises(SourceError, match=r"no folder '.*/curated'; unpack COCOStuff164kCurated\.tar\.gz"):
        open_stuff(tmp_path, LIST)
    write(tmp_path, {"a": [0]})
    with pytest.raises(SourceError, match=r"no class 'aeroplane' of vocabulary 'voc'; .* `vocabulary` coco27"):
        open_stuff(tmp_path, vocabulary="voc")
    source = open_stuff(write(tmp_path, {"b": [0, 183]}))
    with pytest.raises(SampleError, match=r"mask of 'b' in '.*': the data set has no class of value 183"):
        source.ground_truth(source.entries[1])
