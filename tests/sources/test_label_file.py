import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.sources.entry import SourceError
from pseudolabel.sources.label_file import load_label_file

CAT, CAT_AND_BUS = np.eye(20, dtype=np.float32)[7], np.eye(20, dtype=np.float32)[[5, 7]].sum(0)


def test_json_of_names_or_indices(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"a": ["cat"], "b": [5, 7], "c": [], "d": "dog"}))
    assert load_label_file(str(path), 20) == {"a": [["cat"]], "b": [[5, 7]], "c": [[]], "d": ["dog"]}


def write_lines(path: Path, **classes: list[str]) -> None:
    lines = [json.dumps({"key": key, "classes": names, "captions": ["a\u2028b"]}) for key, names in classes.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_jsonl_and_folders_of_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "2.jsonl", c=["dog"])
    write_lines(tmp_path / "1.jsonl", a=["cat", "bus"], b=[])
    (tmp_path / "run.json").write_text("{}")
    assert load_label_file(str(tmp_path / "1.jsonl"), 20) == {"a": [["cat", "bus"]], "b": [[]]}
    assert load_label_file(str(tmp_path), 20) == {"a": [["cat", "bus"]], "b": [[]], "c": [["dog"]]}


def test_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no label lines in .*; set --source\.labels"):
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
        ("l.json", COCO, {"a.jpg": [["cat"], ["dog"]], "b.jpg": [[]]}),
        (
            "l.json",
            [{"image": "a.jpg", "label": "cat"}, {"file_name": "b.jpg", "labels": [7]}, {"key": "c", "names": []}],
            {"a.jpg": ["cat"], "b.jpg": [[7]], "c": [[]]},
        ),
        ("l.txt", "\ufeffa 0 3\r\n\r\nx/b.jpg\tcat,dining table\r\nc\r\n", {
            "a": [["0", "3"]],
            "x/b.jpg": ["cat,dining table"],
            "c": [[]],
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
    assert load_label_file(str(tmp_path / name), 20) == expected


def test_a_folder_with_brackets_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "labels [v1]*"
    folder.mkdir()
    write_lines(folder / "1.jsonl", a=["cat"])
    assert load_label_file(str(folder), 20) == {"a": [["cat"]]}


@pytest.mark.parametrize("line", ["{", '{"key": "b"}', "[]"])
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"key": "a", "classes": []}}\n\n{line}')
    with pytest.raises(SourceError, match=r"a\.jsonl, line 3: not a label line"):
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
    assert load_label_file(f"{tmp_path}/lists.json#{chosen}", 20) == expected


def test_lists_have_to_be_chosen_from_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    with pytest.raises(SourceError, match=r"several lists of labels; choose: .*lists\.json#image\+text\+spelled"):
        load_label_file(f"{tmp_path}/lists.json", 20)
    with pytest.raises(SourceError, match=r"lists\.json' holds no list 'images' .*; it has image, text, spelled"):
        load_label_file(f"{tmp_path}/lists.json#images", 20)


def indices(path: Path) -> dict[str, list[int]]:
    """Where the one-hot vectors of a file are one; they have to be booleans, which are never taken for indices."""
    labels = load_label_file(str(path), 20)
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
        ("labels.json", b'{"a": [], "b": [], "a": [1]}', "not JSON: 'a' comes twice in one object"),
        ("labels.json", b'{"a": {"boxes": [], "size": 3}}', "no labels for 'a' under names or .*, but boxes, size"),
        (
            "labels.json",
            b'{"images": [{}], "annotations": [], "categories": []}',
            "looks like COCO's JSON, .*file_name",
        ),
        (
            "labels.json",
            b'[{"key": 7, "labels": []}]',
            "item 1: .* key or image .* found the number 7; put it in quotes",
        ),
        ("labels.json", b'[{"key": "a", "boxes": []}]', "item 1: not a label, for it has no names or labels"),
        ("labels.txt", b"a 1\nb -1\n", r"labels.txt, line 2: -1 says that an image lacks one class"),
        ("labels.json", b'{"a": "\xff"}', "not UTF-8"),
        ("labels.npz", b"PK\x03\x04 cut", "labels.npz"),
        ("labels.npz", b"", "labels.npz"),
        ("labels.csv", b"a cat", "labels.csv' cannot be read; set --source.labels"),
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
    with pytest.raises(SourceError, match=rf"no file '.*{name}'; set --source.labels"):
        load_label_file(str(tmp_path / name), 20)
