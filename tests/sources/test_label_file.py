import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError
from pseudolabel.sources.label_file import load_label_file
from pseudolabel.sources.source import open_source
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

CAT, CAT_AND_BUS = np.eye(20, dtype=np.float32)[7], np.eye(20, dtype=np.float32)[[5, 7]].sum(0)


def test_json_of_names_or_indices(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"a": ["cat"], "b": [5, 7], "c": [], "d": "dog"}))
    assert load_label_file(str(path), 20).labels == {"a": [["cat"]], "b": [[5, 7]], "c": [[]], "d": ["dog"]}


def write_lines(path: Path, **classes: list[str]) -> None:
    lines = [json.dumps({"key": key, "classes": names, "captions": ["a\u2028b"]}) for key, names in classes.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_jsonl_and_folders_of_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "2.jsonl", c=["dog"])
    write_lines(tmp_path / "1.jsonl", a=["cat", "bus"], b=[])
    (tmp_path / "run.json").write_text("{}")
    assert load_label_file(str(tmp_path / "1.jsonl"), 20).labels == {"a": [["cat", "bus"]], "b": [[]]}
    assert load_label_file(str(tmp_path), 20).labels == {"a": [["cat", "bus"]], "b": [[]], "c": [["dog"]]}


def test_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no label lines in .*; set `source\.labels`"):
        load_label_file(str(tmp_path), 20)


NESTED = {"a": {"labels": ["cat"], "size": [8, 6]}, "b": {"classes": [5, 7]}, "c": ["dog"]}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
    "categories": [{"id": 0, "name": "animals"}, {"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 1, 2, 2]},
        {"id": 2, "image_id": 1, "category_id": 4},
        {"id": 3, "image_id": 3, "category_id": 9},
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("l.json", NESTED, {"a": [["cat"]], "b": [[5, 7]], "c": [["dog"]]}),
        ("l.json", COCO, {"a.jpg": [["cat", "dog"]], "b.jpg": [[]]}),
        (
            "l.json",
            [{"image": "a.jpg", "label": "cat"}, {"file_name": "b.jpg", "labels": [7]}, {"key": "c", "names": []}],
            {"a.jpg": ["cat"], "b.jpg": [[7]], "c": [[]]},
        ),
        ("l.txt", "\ufeffa 0 3\r\n\r\nx/b.jpg\tcat,dining table\r\nc\r\n", {
            "a": ["0 3"],
            "x/b.jpg": ["cat,dining table"],
            "c": [""],
        }),
        (
            "l.jsonl",
            '{"image": "a", "label": 3}\n{"image": "a", "label": 4}\r\n{"key": "b", "labels": null}',
            {"a": [3, 4], "b": [None]},
        ),
    ],
)  # fmt: skip
def test_other_layouts(tmp_path: Path, name: str, content: object, expected: dict[str, list[object]]) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_bytes(text.encode())
    assert load_label_file(str(tmp_path / name), 20).labels == expected


def test_a_folder_with_brackets_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "labels [v1]*"
    folder.mkdir()
    write_lines(folder / "1.jsonl", a=["cat"])
    assert load_label_file(str(folder), 20).labels == {"a": [["cat"]]}


@pytest.mark.parametrize("line", ["{", '{"key": "b"}', "[]"])
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"key": "a", "classes": []}}\n\n{line}')
    with pytest.raises(SourceError, match=r"a\.jsonl line 3: not a label line"):
        load_label_file(str(tmp_path), 20)


LISTS = {
    "image": {"a": ["plane"], "b": []},
    "text": {"a": ["people", "plane"], "c": ["cat"]},
    "spelled": {"b": ["dog"]},
}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("image", {"a": [["plane"]], "b": [[]]}),
        ("image+text", {"a": [["plane"], ["people", "plane"]], "b": [[]], "c": [["cat"]]}),
        ("text+spelled", {"a": [["people", "plane"]], "b": [["dog"]], "c": [["cat"]]}),
    ],
)
def test_union_of_named_lists(tmp_path: Path, chosen: str, expected: dict[str, list[list[str]]]) -> None:
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    assert load_label_file(f"{tmp_path}/lists.json#{chosen}", 20).labels == expected


def test_lists_have_to_be_chosen_from_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    with pytest.raises(SourceError, match=r"several lists of labels; choose: .*lists\.json#image\+text\+spelled"):
        load_label_file(f"{tmp_path}/lists.json", 20)
    with pytest.raises(SourceError, match=r"lists\.json' holds no list 'images' .*; it has image, text, spelled"):
        load_label_file(f"{tmp_path}/lists.json#images", 20)


def indices(path: Path) -> dict[str, list[int]]:
    """Where the one-hot vectors of a file are one; they have to be booleans, which are never taken for indices."""
    labels = load_label_file(str(path), 20).labels
    assert {type(value) for (vector,) in labels.values() for value in vector} == {bool}  # type: ignore[attr-defined]
    return {name: np.flatnonzero(vector).tolist() for name, (vector,) in labels.items()}  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool])
def test_npz_of_one_vector_per_image(tmp_path: Path, dtype: type) -> None:
    vectors = {"2007_1": CAT, "2007_2": CAT_AND_BUS, "2007_3": 0 * CAT}
    np.savez(tmp_path / "labels.npz", **{name: vector.astype(dtype) for name, vector in vectors.items()})
    assert indices(tmp_path / "labels.npz") == {"2007_1": [7], "2007_2": [5, 7], "2007_3": []}


@pytest.mark.parametrize("kind", ["U", "S"])
def test_npz_of_ids_and_labels(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "labels.npz", ids=np.array(["a", "b"], kind), labels=np.stack([CAT, CAT_AND_BUS]))
    assert indices(tmp_path / "labels.npz") == {"a": [7], "b": [5, 7]}


def test_pickled_labels_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    """The message's own command, run as it stands, must make a file that loads."""
    np.save(tmp_path / "cls_labels.npy", {"a": CAT, "b": CAT_AND_BUS})  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="pickled arrays are not opened") as caught:
        load_label_file(str(tmp_path / "cls_labels.npy"), 20)
    command = "python -c " + str(caught.value).partition("python -c ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    assert indices(tmp_path / "cls_labels.npz") == {"a": [7], "b": [5, 7]}


def test_pickles_inside_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", ids=np.array(["a"], object), labels=CAT[None])
    with pytest.raises(SourceError, match="pickled arrays are not opened"):
        load_label_file(str(tmp_path / "labels.npz"), 20)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (np.zeros(21), r"\(21,\); a one-hot vector of the 20 classes"),
        (np.array([0, 14]), r"\(2,\); a one-hot"),
        (CAT * 0.5, "one-hot"),
    ],
)
def test_vectors_that_are_not_one_hot_are_refused(tmp_path: Path, vector: np.ndarray, reason: str) -> None:
    np.savez(tmp_path / "labels.npz", a=vector)
    with pytest.raises(SourceError, match=reason):
        load_label_file(str(tmp_path / "labels.npz"), 20)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels.json", b"{", "is not JSON"),
        ("labels.json", b"[1]", "holds a JSON list, not of objects with key and labels"),
        ("labels.json", b"3", "holds a JSON int; an object"),
        ("labels.json", b'{"a": [], "b": [], "a": [1]}', "not JSON: field 'a' is repeated in one object"),
        ("labels.json", b'{"a": {"boxes": [], "size": 3}}', "no labels for 'a' under names or .*, but boxes, size"),
        (
            "labels.json",
            b'{"images": [{}], "annotations": []}',
            "has no list 'categories', so that it is no COCO JSON",
        ),
        (
            "labels.json",
            b'[{"key": 7, "labels": []}]',
            "item 1: .* key or image .* found the number 7; put it in quotes",
        ),
        ("labels.json", b'[{"key": "a", "boxes": []}]', "item 1: not a label: no names or labels"),
        ("labels.txt", b"a 1\nb -1\n", r"labels.txt line 2: -1 says that an image lacks one class"),
        ("labels.json", b'{"a": "\xff"}', "not UTF-8"),
        ("labels.npz", b"PK\x03\x04 cut", "labels.npz"),
        ("labels.npz", b"", "labels.npz"),
        ("labels.csv", b"a cat", "labels.csv' cannot be read; set `source.labels`"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        load_label_file(str(tmp_path / name), 20)


def test_an_array_without_ids_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros((3, 20)))
    with pytest.raises(SourceError, match="names no images"):
        load_label_file(str(tmp_path / "labels.npy"), 20)


def test_ids_and_labels_of_different_length_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", ids=np.array(["a", "b"]), labels=CAT[None])
    with pytest.raises(SourceError, match="do not belong together"):
        load_label_file(str(tmp_path / "labels.npz"), 20)


@pytest.mark.parametrize("name", ["labels.json", "labels.npz"])
def test_a_missing_file_is_named_with_the_mend(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=rf"no file '.*{name}'; set `source.labels`"):
        load_label_file(str(tmp_path / name), 20)


def coco(images: list[object], annotations: list[object], categories: dict[int, str]) -> str:
    named = [{"id": number, "name": name} for number, name in categories.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": named})


def test_coco_with_ids_as_text_and_damaged_entries(tmp_path: Path) -> None:
    images: list[object] = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": None}]
    annotations: list[object] = [
        {"image_id": "1", "category_id": 4},
        {"image_id": 1, "category_id": "9", "segmentation": "damaged"},
        {"image_id": 99, "category_id": 4},
        {"category_id": 4},
    ]
    (tmp_path / "l.json").write_text(coco(images, annotations, {4: "cat", 9: "dog"}))
    labels, left_out = load_label_file(str(tmp_path / "l.json"), 20)
    assert labels == {"a.jpg": [["cat", "dog"]]}
    assert left_out.reasons == {
        "image(s) without id or file_name": 1,
        "object(s) of an image not listed": 1,
        "object(s) without image or category": 1,
    }


def test_coco_images_or_categories_of_one_id_are_refused(tmp_path: Path) -> None:
    images: list[object] = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    (tmp_path / "l.json").write_text(coco(images, [], {4: "cat"}))
    with pytest.raises(SourceError, match=r"the images 'a\.jpg' and 'b\.jpg' the same id 1"):
        load_label_file(str(tmp_path / "l.json"), 20)
    twice = [{"id": 1, "name": "cat"}, {"id": "1", "name": "dog"}]
    (tmp_path / "l.json").write_text(json.dumps({"images": images[:1], "annotations": [], "categories": twice}))
    with pytest.raises(SourceError, match="the categories 'cat' and 'dog' the same id 1"):
        load_label_file(str(tmp_path / "l.json"), 20)


def test_what_a_label_file_drops_is_told(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("images/a.jpg")
    annotations: list[object] = [{"image_id": 1, "category_id": 4}, {"image_id": 7, "category_id": 4}]
    (tmp_path / "l.json").write_text(coco([{"id": 1, "file_name": "a.jpg"}], annotations, {4: "cat"}))
    source = open_source(
        SourceConfig(kind="folder", path=str(tmp_path / "images"), labels=str(tmp_path / "l.json")), voc
    )
    assert [entry.classes for entry in source.entries] == [(8,)]
    assert source.left_out.reasons == {"object(s) of an image not listed": 1}


def test_npz_unites_the_rows_of_one_id(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("images/a.jpg")
    np.savez(tmp_path / "l.npz", ids=np.array(["a", "a"]), labels=np.eye(20)[[7, 5]])
    config = SourceConfig(kind="folder", path=str(tmp_path / "images"), labels=str(tmp_path / "l.npz"))
    assert [entry.classes for entry in open_source(config, voc).entries] == [(6, 8)]
    np.savez(tmp_path / "l.npz", ids=np.array(["a"]), labels=np.array(3))
    with pytest.raises(SourceError, match=r"ids \(1,\) and labels \(\) do not belong together"):
        open_source(config, voc)


def test_names_in_a_text_file_may_hold_blanks(tmp_path: Path, save_image) -> None:
    for name in ("c", "d", "e f", "g", "img"):
        save_image(f"images/{name}.jpg")
    (tmp_path / "l.txt").write_text("c red car\nd 0 2\ne f\tcar\tred car\ng red, car\nimg 1 red\n")
    config = SourceConfig(kind="folder", path=str(tmp_path / "images"), labels=str(tmp_path / "l.txt"))
    entries = open_source(config, load_vocabulary("red, car, red car")).entries
    assert [entry.classes for entry in entries] == [(3,), (1, 3), (2, 3), (1, 2), ()]
    assert entries[4].problem is not None
    assert entries[4].problem.status == "unknown_class"
    message = str(entries[4].problem)
    assert "'1 red'" in message
    assert message.endswith("several labels on a line are separated by commas: ID cat,dog")


def test_a_field_that_comes_twice_in_a_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"key": "a", "labels": ["cat"], "labels": ["dog"]}')
    with pytest.raises(SourceError, match=r"l\.jsonl line 1: .*field 'labels' is repeated in one object"):
        load_label_file(str(tmp_path / "l.jsonl"), 20)


def test_names_that_blanks_cut_short_are_failures(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    for name in ("img", "img 1", "other"):
        save_image(f"images/{name}.jpg")
    config = SourceConfig(kind="folder", path=str(tmp_path / "images"), labels=str(tmp_path / "l.txt"))
    (tmp_path / "l.txt").write_text("img 0\nimg 1 3\nother 4\n")
    entries = open_source(config, voc).entries
    assert [entry.classes for entry in entries] == [(), (), (5,)]
    assert [entry.problem and entry.problem.status for entry in entries] == ["unclear_labels", "missing", None]
    (tmp_path / "l.txt").write_text("img\t0\nimg 1\t3\nother 4\n")
    assert [entry.classes for entry in open_source(config, voc).entries] == [(1,), (4,), (5,)]
