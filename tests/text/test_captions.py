import json
from pathlib import Path

import pytest

from pseudolabel.sources.entry import Entry, SourceError
from pseudolabel.text.captions import check_complete, load_captions
from pseudolabel.vocabulary import load_vocabulary


def write(path: Path, *rows: tuple[str, str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"key": key, "class": name, "caption": caption}) for key, name, caption in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.jsonl", ("a", "cat", "a cat"), ("a", "dog", "a dog, wét"))
    assert load_captions(str(path)) == {("a", "cat"): "a cat", ("a", "dog"): "a dog, wét"}


def test_a_folder_of_files(tmp_path: Path) -> None:
    write(tmp_path / "2.jsonl", ("b", "cat", "another cat"))
    write(tmp_path / "1.jsonl", ("a", "cat", "a cat"))
    (tmp_path / "notes.txt").write_text("no captions")
    assert load_captions(str(tmp_path)) == {("a", "cat"): "a cat", ("b", "cat"): "another cat"}


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_an_empty_caption_gives_way(tmp_path: Path, order: tuple[str, str]) -> None:
    write(tmp_path / f"{order[0]}.jsonl", ("a", "cat", ""))
    write(tmp_path / f"{order[1]}.jsonl", ("a", "cat", "a cat"))
    assert load_captions(str(tmp_path)) == {("a", "cat"): "a cat"}


def test_no_captions(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SourceError, match=r"no captions in .*--captions\.source"):
            load_captions(str(place))


@pytest.mark.parametrize("line", ["{", '"text"', '{"key": "a"}', '{"key": "a", "class": "cat"}', "[1]"])
def test_a_line_that_is_no_caption_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"key": "a", "class": "cat", "caption": "a cat"}\n\n' + line)
    with pytest.raises(SourceError, match=r"captions\.jsonl, line 3: not a caption"):
        load_captions(str(path))


def test_every_labelled_pair_needs_a_caption() -> None:
    vocabulary = load_vocabulary("voc")
    entries = [
        Entry("a", "a.jpg", (8, 12), "list"),
        Entry("b", "b.jpg", (), "list"),
        Entry("c", "c.jpg", (15,), "list"),
    ]
    captions = {("a", "cat"): "a cat", ("a", "dog"): "", ("c", "person"): "a person"}
    check_complete(captions, entries, vocabulary, "captions")
    del captions["a", "dog"], captions["c", "person"]
    with pytest.raises(
        SourceError, match=r"lacks 2 of 3 captions, the first for class 'dog' of 'a'.*pseudolabel caption"
    ):
        check_complete(captions, entries, vocabulary, "captions")
