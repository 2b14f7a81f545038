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
    path.write_text(json.dumps({"a": ["cat"], "b": [5, 7], "c": []}))
    assert load_label_file(str(path), 20) == {"a": ["cat"], "b": [5, 7], "c": []}


def write_lines(path: Path, **classes: list[str]) -> None:
    lines = [json.dumps({"key": key, "classes": names, "captions": ["a\u2028b"]}) for key, names in classes.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_jsonl_and_folders_of_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "2.jsonl", c=["dog"])
    write_lines(tmp_path / "1.jsonl", a=["cat", "bus"], b=[])
    (tmp_path / "run.json").write_text("{}")
    assert load_label_file(str(tmp_path / "1.jsonl"), 20) == {"a": ["cat", "bus"], "b": []}
    assert load_label_file(str(tmp_path), 20) == {"a": ["cat", "bus"], "b": [], "c": ["dog"]}


def test_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no label lines in .*; set --source\.labels"):
        load_label_file(str(tmp_path), 20)


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
        ("image", {"a": ["plane"], "b": []}),
        ("image+text", {"a": ["plane", "people", "plane"], "b": [], "c": ["cat"]}),
        ("text+spelled", {"a": ["people", "plane"], "b": ["dog"], "c": ["cat"]}),
    ],
)
def test_union_of_named_lists(tmp_path: Path, chosen: str, expected: dict[str, list[str]]) -> None:
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    assert load_label_file(f"{tmp_path}/lists.json#{chosen}", 20) == expected


def test_lists_have_to_be_chosen_from_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    with pytest.raises(SourceError, match=r"several lists of labels; choose: .*lists\.json#image\+text\+spelled"):
        load_label_file(f"{tmp_path}/lists.json", 20)
    with pytest.raises(SourceError, match=r"lists\.json' holds no list 'images' .*; it has image, text, spelled"):
        load_label_file(f"{tmp_path}/lists.json#images", 20)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool])
def test_npz_of_one_vector_per_image(tmp_path: Path, dtype: type) -> None:
    vectors = {"2007_1": CAT, "2007_2": CAT_AND_BUS, "2007_3": 0 * CAT}
    np.savez(tmp_path / "labels.npz", **{name: vector.astype(dtype) for name, vector in vectors.items()})
    labels = load_label_file(str(tmp_path / "labels.npz"), 20)
    assert labels == {"2007_1": [7], "2007_2": [5, 7], "2007_3": []}


@pytest.mark.parametrize("kind", ["U", "S"])
def test_npz_of_ids_and_labels(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "labels.npz", ids=np.array(["a", "b"], kind), labels=np.stack([CAT, CAT_AND_BUS]))
    assert load_label_file(str(tmp_path / "labels.npz"), 20) == {"a": [7], "b": [5, 7]}


def test_pickled_labels_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    """The message's own command, run as it stands, must make a file that loads."""
    np.save(tmp_path / "cls_labels.npy", {"a": CAT, "b": CAT_AND_BUS})  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="pickled arrays are not opened") as caught:
        load_label_file(str(tmp_path / "cls_labels.npy"), 20)
    command = "python -c " + str(caught.value).partition("python -c ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    assert load_label_file(str(tmp_path / "cls_labels.npz"), 20) == {"a": [7], "b": [5, 7]}


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
        ("labels.json", b"[1]", "JSON list; an object"),
        ("labels.json", b'{"a": "\xff"}', "not UTF-8"),
        ("labels.npz", b"PK\x03\x04 cut", "labels.npz"),
        ("labels.npz", b"", "labels.npz"),
        ("labels.txt", b"a cat", "labels.txt' cannot be read; set --source.labels"),
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
