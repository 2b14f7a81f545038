import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.io.images import mask_image
from pseudolabel.sources.context import read_label_map
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.data_sets import CONTEXT

NAMES = {1: "accordion", 2: "aeroplane", 45: "bed clothes", 232: "horse", 308: "potted plant", 368: "sky", 427: "hat"}


def mat(**variables: np.ndarray) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=True)
    return file.getvalue()


def write(root: Path, maps: dict[str, list[int]], lists: str = "ImageSets/Main") -> Path:
    """VOC 2010's folder with images of one row, and Pascal Context's files unpacked in it."""
    for folder in ("JPEGImages", "trainval", lists):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, values in maps.items():
        Image.new("RGB", (len(values), 1)).save(root / f"JPEGImages/{name}.jpg")
        (root / f"trainval/{name}.mat").write_bytes(mat(LabelMap=np.array([values], np.uint16)))
    (root / "labels.txt").write_text("".join(f"{value}: {name}\n" for value, name in NAMES.items()))
    (root / lists / "val.txt").write_text("".join(f"{name}\n" for name in maps))
    return root


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "few.yaml"
    path.write_text("classes: [{name: bedclothes, synonyms: [accordion]}, horse, pottedplant, aeroplane]")
    return str(path)


def open_context(root: Path, vocabulary: str, **settings: str) -> Source:
    config = SourceConfig(**{"kind": "context", "path": str(root), "split": "val", **settings})
    return open_source(config, load_vocabulary(vocabulary))


def test_label_maps_are_read_by_the_names_of_their_values(tmp_path: Path, vocabulary: str) -> None:
    """A synonym of the user's is no name of the data set's; what is no class is background."""
    root = write(tmp_path, {"2008_000002": [2, 308, 45, 232, 1, 368, 427, 0]})
    source = open_context(root, vocabulary)
    assert [(entry.key, entry.classes) for entry in source.entries] == [("2008_000002", ())]
    truth = source.ground_truth(source.entries[0], (1, 8))
    assert truth.labels.dtype == np.uint8
    assert truth.labels.tolist() == [[4, 3, 1, 2, 0, 0, 0, 0]]
    assert open_context(root, vocabulary, labels="masks").entries[0].classes == (1, 2, 3, 4)


def test_the_59_classes_in_their_order() -> None:
    """That of MMSegmentation's PNGs, whose values are the vocabulary's indices."""
    assert load_vocabulary("context").names[1:] == tuple(CONTEXT)


def test_the_lists_of_mmsegmentation_go_before_those_of_voc(tmp_path: Path, vocabulary: str) -> None:
    write(tmp_path, {"a": [2], "b": [2]})
    assert [entry.key for entry in open_context(tmp_path, vocabulary).entries] == ["a", "b"]
    write(tmp_path, {"b": [2]}, "ImageSets/SegmentationContext")
    assert [entry.key for entry in open_context(tmp_path, vocabulary).entries] == ["b"]


def test_converted_masks_serve_where_there_are_no_others(tmp_path: Path, vocabulary: str) -> None:
    write(tmp_path, {"a": [2, 232]})
    (tmp_path / "SegmentationClassContext").mkdir()
    mask_image(np.array([[0, 3]], np.uint8)).save(tmp_path / "SegmentationClassContext/a.png")
    source = open_context(tmp_path, vocabulary)
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[4, 2]]
    source = open_context(tmp_path, vocabulary, masks=str(tmp_path / "SegmentationClassContext"))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[0, 3]]
    (tmp_path / "trainval").rename(tmp_path / "elsewhere")
    source = open_context(tmp_path, vocabulary)
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[0, 3]]


def test_the_shipped_experiment_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("context")
    write(tmp_path / "VOCdevkit/VOC2010", {"2008_000002": [2]})
    names = "".join(f"{value}: {name}\n" for value, name in enumerate(["accordion", *CONTEXT], 1))
    (tmp_path / "VOCdevkit/VOC2010/labels.txt").write_text(names)
    monkeypatch.chdir(tmp_path)
    (entry,) = (source := open_source(experiment.source, load_vocabulary(experiment.vocabulary))).entries
    assert set(np.unique(source.ground_truth(entry).labels)) == {1}
    assert source.read(entry).key == entry.key


def test_what_is_missing_is_told_with_its_place(tmp_path: Path, vocabulary: str) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*/JPEGImages'; .*VOCtrainval_03-May-2010\.tar.*/VOC2010"):
        open_context(tmp_path, vocabulary)
    write(tmp_path, {"a": [2]})
    with pytest.raises(SourceError, match=r"no class 'bicycle' .*; .* own classes are `vocabulary` context"):
        open_context(tmp_path, "voc")
    with pytest.raises(SourceError, match=r"no file '.*Main/train\.txt'; `source\.split` can be val, or the path"):
        open_context(tmp_path, vocabulary, split="train")
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(SourceError, match=r"no file '.*labels\.txt'; download trainval\.tar\.gz and labels\.txt from"):
        open_context(tmp_path, vocabulary)
    (tmp_path / "trainval").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"no folder '.*/trainval'; download .*~roozbeh/pascal-context"):
        open_context(tmp_path, vocabulary)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "truncated"),
        (b"no MATLAB file" * 20, "unreadable"),
        (mat(LabelMap=np.ones((40, 50), np.uint16))[:-20], "unreadable"),
        (mat(Other=np.ones((4, 5), np.uint16)), "unreadable"),
        (mat(LabelMap=np.ones((4, 5))), "unreadable"),
        (mat(LabelMap=np.ones((4, 5, 2), np.uint16)), "unreadable"),
        (mat(LabelMap=np.ones((0, 5), np.uint16)), "unreadable"),
        (mat(LabelMap=np.ones((40, 60), np.uint16)), "too_large"),
    ],
)
def test_damaged_and_foreign_files_are_bad_samples(data: bytes, status: str) -> None:
    with pytest.raises(SampleError, match=r"^mask of 'a': ") as caught:
        read_label_map(data, "mask of 'a'", 2000)
    assert caught.value.status == status


def test_a_file_without_compression_reads_alike(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 460, (7, 5)).astype(np.uint16)
    scipy.io.savemat(tmp_path / "a.mat", {"LabelMap": values})
    assert np.array_equal(read_label_map((tmp_path / "a.mat").read_bytes(), "a"), values)
    assert np.array_equal(read_label_map(mat(LabelMap=values), "a", 35), values)
