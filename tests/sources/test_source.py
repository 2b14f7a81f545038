import dataclasses
import gc
import json
import pickle
import tarfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import NoLabelsError, SampleError, SourceError
from pseudolabel.records import Sample
from pseudolabel.sources.source import KINDS, Source, open_source
from pseudolabel.sources.table import list_table
from pseudolabel.vocabulary import Vocabulary, load_vocabulary


@pytest.fixture
def table(tmp_path: Path, save_image) -> SourceConfig:
    """Five images; the third has another size than its mask, the fourth no mask, the fifth no labels."""
    names = "edcba"
    for name in names:
        save_image(f"{name}.jpg", size=(9, 9) if name == "c" else (8, 6))
        if name != "d":
            save_image(f"masks/{name}.png", 8, mode="L")
    rows = "".join(f"{name}.jpg,{'' if name == 'e' else 'cat'}\n" for name in names)
    (tmp_path / "t.csv").write_text(f"image,labels\n{rows}")
    return SourceConfig(kind="table", path=str(tmp_path / "t.csv"), masks=str(tmp_path / "masks"))


def status_of(source: Source, number: int) -> str:
    with pytest.raises(SampleError) as caught:
        source.read(source.entries[number])
    return caught.value.status


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_path_the_option_is_taught(kind: str, voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=rf"{kind} data .* `source\.path`"):
        open_source(SourceConfig(kind=kind), voc)


def test_the_help_names_every_kind() -> None:
    assert [kind for kind in KINDS if f"`{kind}`" not in (SourceConfig.__doc__ or "")] == []


def test_an_unknown_kind_is_told(voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=r"no source kind 'coco'; .* voc, table, folder, shards, context"):
        open_source(SourceConfig(kind="coco", path="x"), voc)


def test_entries_are_sorted_and_then_limited(table: SourceConfig, voc: Vocabulary) -> None:
    assert [entry.key for entry in open_source(table, voc).entries] == list("abcde")
    for limit, keys in ((2, "ab"), (0, "abcde"), (9, "abcde")):
        source = open_source(dataclasses.replace(table, limit=limit), voc)
        assert [entry.key for entry in source.entries] == list(keys)
    with pytest.raises(SourceError, match=r"`source\.limit` -1 is negative"):
        open_source(dataclasses.replace(table, limit=-1), voc)


def test_the_collector_rests_only_while_images_are_listed(
    table: SourceConfig, voc: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setitem(KINDS, "table", lambda *_: seen.append(gc.isenabled()) or list_table(table, voc))
    open_source(table, voc)
    assert gc.isenabled()
    with pytest.raises(SourceError):
        open_source(dataclasses.replace(table, labels="nowhere.json"), voc)
    assert gc.isenabled()
    gc.disable()
    try:
        open_source(table, voc)
        assert not gc.isenabled()  # whoever has switched it off keeps it so
    finally:
        gc.enable()
    assert seen == [False, False, False]


def test_bad_images_have_a_status_of_their_own(
    tmp_path: Path, table: SourceConfig, voc: Vocabulary, save_image
) -> None:
    Image.effect_noise((64, 64), 99).convert("RGB").save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").unlink()
    save_image("d.jpg", size=(11, 10))
    source = open_source(dataclasses.replace(table, max_pixels=100), voc)
    statuses = [status_of(source, number) for number in range(5)]
    assert statuses == ["too_large", "unreadable", "missing", "too_large", "unlabelled"]
    source = open_source(dataclasses.replace(table, max_pixels=64 * 64), voc)
    assert status_of(source, 0) == "truncated"


def test_messages_name_the_file_and_the_row(tmp_path: Path, table: SourceConfig, voc: Vocabulary) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    source = open_source(table, voc)
    with pytest.raises(SampleError, match=r"a\.jpg \(.*t\.csv line 6\): not an image"):
        source.read(source.entries[0])


def test_unlabelled_images_may_be_background(table: SourceConfig, voc: Vocabulary) -> None:
    source = open_source(dataclasses.replace(table, unlabelled="background"), voc)
    sample = source.read(source.entries[4])
    assert isinstance(sample, Sample)
    assert sample.classes == ()


def relabelled(config: SourceConfig, labels: str, voc: Vocabulary) -> dict[str, tuple[int, ...] | str]:
    """Classes by key, or the status of what keeps them from being understood."""
    entries = open_source(dataclasses.replace(config, labels=labels), voc).entries
    return {entry.key: entry.problem.status if entry.problem else entry.classes for entry in entries}


def test_a_label_file_labels_any_kind(table: SourceConfig, voc: Vocabulary, tmp_path: Path, save_image) -> None:
    file = tmp_path / "labels.jsonl"
    rows = {"a": ["dog", "cat"], "b": [], "c": ["unheard of"], "e": ["bus"]}
    file.write_text("".join(json.dumps({"key": key, "classes": names}) + "\n" for key, names in rows.items()))
    expected = {"a": (8, 12), "b": (), "c": "unknown_class", "d": "missing", "e": (6,)}
    assert relabelled(table, str(file), voc) == expected
    save_image("images/nonsense/x.v2.jpg")
    folder = SourceConfig(kind="folder", path=str(tmp_path / "images"))
    file.write_text('{"key": "nonsense/x_v2", "classes": ["cat"]}')
    assert relabelled(folder, str(file), voc) == {"nonsense/x_v2": (8,)}
    (tmp_path / "labels.json").write_text('{"nonsense/x.v2": [7]}')
    assert relabelled(folder, str(tmp_path / "labels.json"), voc) == {"nonsense/x_v2": (8,)}


def test_labels_may_be_left_out(table: SourceConfig, voc: Vocabulary, tmp_path: Path, save_image) -> None:
    assert relabelled(table, "none", voc) == dict.fromkeys("abcde", ())
    save_image("images/nonsense/x.jpg")
    save_image("images/cat/x.jpg")
    folder = SourceConfig(kind="folder", path=str(tmp_path / "images"))
    assert relabelled(folder, "xml", voc) == {"cat/x": (8,), "nonsense/x": "unknown_class"}
    assert relabelled(folder, "none", voc) == {"cat/x": (), "nonsense/x": ()}


def test_other_labels_do_not_bring_back_a_missing_image(voc: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"names": ["cat"]}')
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.json", "a.json")
    (tmp_path / "labels.json").write_text('{"a": ["dog"]}')
    shards = SourceConfig(kind="shards", path=str(tmp_path / "s.tar"))
    for labels in ("none", str(tmp_path / "labels.json")):
        assert relabelled(shards, labels, voc) == {"a": "missing"}


def test_a_label_file_of_other_images(table: SourceConfig, voc: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"key": "z", "classes": ["cat"]}')
    with pytest.raises(
        SourceError,
        match=r"labels\.jsonl' labels none of the images: it has 'z', and .* are 'a', 'b', 'c', \.\.\. \(5 in all\)",
    ):
        relabelled(table, str(tmp_path / "labels.jsonl"), voc)


@pytest.mark.parametrize("labels", ["hors", "20", "7;7"])
def test_labels_of_which_none_is_a_class_end_the_run(voc: Vocabulary, tmp_path: Path, labels: str) -> None:
    (tmp_path / "t.csv").write_text(f"image,labels\na.jpg,\nb.jpg,{labels}\n")
    table = SourceConfig(kind="table", path=str(tmp_path / "t.csv"))
    with pytest.raises(
        NoLabelsError,
        match=rf"t\.csv' has labels that fit vocabulary 'voc' \(aeroplane, .* The first: .* line 3: .*{labels[-1]}",
    ):
        open_source(table, voc)
    for source in ("none", "labels.json"):
        (tmp_path / "labels.json").write_text('{"b": ["dog"]}')
        where = str(tmp_path / source) if source != "none" else source
        assert len(open_source(dataclasses.replace(table, labels=where), voc).entries) == 2
    (tmp_path / "t.csv").write_text(f"image,labels\na.jpg,cat\nb.jpg,{labels}\n")
    assert [entry.classes for entry in open_source(table, voc).entries] == [(8,), ()]


def test_ground_truth_is_checked_against_the_image(table: SourceConfig, voc: Vocabulary) -> None:
    source = open_source(table, voc)
    a, _, c, d, _ = source.entries
    truth = source.ground_truth(a, (6, 8))
    assert truth is not None
    assert truth.key == "a"
    assert truth.labels.dtype == np.uint8
    assert source.ground_truth(d, (6, 8)) is None
    assert source.ground_truth(c) is not None
    with pytest.raises(SampleError, match=r"mask of 'c' .*\(6, 8\) where the image is \(9, 9\)") as caught:
        source.ground_truth(c, (9, 9))
    assert caught.value.status == "size_mismatch"


@pytest.mark.parametrize("value", [20, 21, 254, 255])
def test_ground_truth_holds_classes_of_the_vocabulary(
    table: SourceConfig, voc: Vocabulary, tmp_path: Path, value: int
) -> None:
    Image.fromarray(np.array([[0, value]], np.uint8)).save(tmp_path / "masks/a.png")
    source = open_source(table, voc)
    if value in (20, 255):
        truth = source.ground_truth(source.entries[0])
        assert truth is not None
        assert truth.labels.tolist() == [[0, value]]
        return
    with pytest.raises(SampleError, match=f"label value {value}; the vocabulary ends at 20") as caught:
        source.ground_truth(source.entries[0])
    assert caught.value.status == "unknown_class"


def test_without_a_background_class_no_label_is_ignored(table: SourceConfig, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "masks/a.png")
    (tmp_path / "all.yaml").write_text("background: false\nclasses: [cat]")
    source = open_source(table, load_vocabulary(str(tmp_path / "all.yaml")))
    assert source.ground_truth(source.entries[0]).labels.tolist() == [[255, 1, 255]]


def test_labels_from_masks_of_every_kind(table: SourceConfig, voc: Vocabulary, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 20, 255, 3, 20]], np.uint8)).save(tmp_path / "masks/a.png")
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "masks/b.png")
    (tmp_path / "masks/c.png").write_bytes(b"damaged")
    a, b, c, d, e = open_source(dataclasses.replace(table, labels="masks"), voc).entries
    assert [entry.classes for entry in (a, b, e)] == [(3, 20), (), (8,)]
    assert [entry.problem and entry.problem.status for entry in (a, b, c, d, e)] == [
        None,
        None,
        "unreadable",
        "missing",
        None,
    ]
    assert d.problem is not None
    assert str(d.problem) == f"labels: no ground truth for 'd': tried '{tmp_path}/masks/d.png'"
    with pytest.raises(SourceError, match=r"has no masks to take labels from; .*`source\.masks`"):
        open_source(dataclasses.replace(table, labels="masks", masks=""), voc)


def test_labels_from_masks_take_the_place_of_those_in_the_listing(
    table: SourceConfig, voc: Vocabulary, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("image,labels\na.jpg,unicorn\n")
    source = open_source(dataclasses.replace(table, labels="masks"), voc)
    assert source.read(source.entries[0]).classes == (8,)


@pytest.mark.parametrize("background", [True, False])
def test_masks_of_0_and_255_alone_are_told(
    table: SourceConfig, voc: Vocabulary, tmp_path: Path, background: bool
) -> None:
    vocabulary = dataclasses.replace(voc, has_background=background)
    for name in "abce":
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / f"masks/{name}.png")
    with pytest.raises(
        SourceError, match=r"all of them hold only 0 and 255.*write 1 for the pixels of the first class"
    ):
        open_source(dataclasses.replace(table, labels="masks"), vocabulary)
    Image.fromarray(np.array([[0, 8, 255]], np.uint8)).save(tmp_path / "masks/c.png")
    labelled = open_source(dataclasses.replace(table, labels="masks"), vocabulary)
    assert [entry.classes for entry in labelled.entries] == [(), (), (8,), (), ()]


def test_masks_of_background_alone_are_labels(table: SourceConfig, voc: Vocabulary, tmp_path: Path) -> None:
    for name in "abce":
        Image.fromarray(np.zeros((1, 2), np.uint8)).save(tmp_path / f"masks/{name}.png")
    source = open_source(dataclasses.replace(table, labels="masks", unlabelled="background"), voc)
    assert source.read(source.entries[0]).classes == ()


def test_masks_of_colours_alone_are_told(table: SourceConfig, voc: Vocabulary, tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (8, 6)).save(tmp_path / f"masks/{name}.png")
    (tmp_path / "t.csv").write_text("image,labels\na.jpg,cat\nb.jpg,cat\n")
    with pytest.raises(SourceError, match=r"no labels can be taken .* the first of 2: labels: .*a\.png': .* mode RGB"):
        open_source(dataclasses.replace(table, labels="masks"), voc)


def test_labels_from_masks_that_are_all_elsewhere(table: SourceConfig, voc: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"the first of 5: labels: no ground truth for 'a': tried '.*/empty/a\.png'"):
        open_source(dataclasses.replace(table, labels="masks", masks=str(tmp_path / "empty")), voc)


def test_without_masks_there_is_no_ground_truth(table: SourceConfig, voc: Vocabulary) -> None:
    source = open_source(dataclasses.replace(table, masks=""), voc)
    assert not source.has_ground_truth
    assert source.ground_truth(source.entries[0]) is None


def test_sources_travel_to_other_processes(table: SourceConfig, voc: Vocabulary) -> None:
    source = pickle.loads(pickle.dumps(open_source(table, voc)))
    assert source.read(source.entries[0]).classes == (8,)
    assert source.ground_truth(source.entries[0], (6, 8)) is not None


def test_a_view_is_taken_of_the_decoded_image_which_is_not_kept(table: SourceConfig, voc: Vocabulary) -> None:
    source, seen = open_source(table, voc), []

    def view(image: Image.Image) -> tuple[int, int]:
        seen.append(weakref.ref(image))
        return image.size

    sample = source.read(source.entries[1], view)
    assert (sample.view, sample.size, seen[0]()) == ((8, 6), (6, 8), None)
    assert sample.viewed(view) == (8, 6)
    assert len(seen) == 1
    assert np.array_equal(sample.image, Image.open(f"{Path(table.path).parent}/b.jpg"))
    assert source.read(source.entries[1]).viewed(view) == (8, 6)
    assert len(seen) == 2
