import json
from pathlib import Path

import pytest

from pseudolabel.errors import SourceError
from pseudolabel.sources.entry import Entry
from pseudolabel.text.captions import check_complete, check_images, load_captions, match_captions
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
        with pytest.raises(SourceError, match=r"no captions in .*`captions\.source`"):
            load_captions(str(place))


@pytest.mark.parametrize("line", ["{", '"text"', '{"key": "a"}', '{"key": "a", "class": "cat"}', "[1]"])
def test_a_line_that_is_no_caption_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"key": "a", "class": "cat", "caption": "a cat"}\n\n' + line)
    with pytest.raises(SourceError, match=r"captions\.jsonl line 3: not a caption"):
        load_captions(str(path))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"key": "a", "class": "cat", "caption": None}, 'caption is null, where text is needed; write "" for an image'),
        ({"key": "a", "class": "cat", "caption": ["a cat"]}, r'caption is \["a cat"\], where text is needed'),
        ({"key": 7, "class": "cat", "caption": "a cat"}, "key is 7, where text is needed; write the image's key"),
        ({"key": "a", "class": None, "caption": "a cat"}, "class is null, .* write the class's name, or"),
        ({"key": "a", "text": "a cat", "class": "cat"}, "caption is missing, where text is needed"),
    ],
)
def test_captions_of_the_wrong_type_are_named(tmp_path: Path, record: dict[str, object], reason: str) -> None:
    path = write(tmp_path / "captions.jsonl", ("a", "cat", "a cat"))
    path.write_text(path.read_text() + json.dumps(record))
    with pytest.raises(SourceError, match=rf"captions\.jsonl line 2: not a caption: {reason}"):
        load_captions(str(path))


def test_files_of_other_systems(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.jsonl", ("a", "cat", "a cat"), ("b", "cat", "another"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_captions(str(path)) == {("a", "cat"): "a cat", ("b", "cat"): "another"}


ENTRIES = [Entry("x/café", "a.jpg", (8, 12), "list"), Entry("b", "b.jpg", (15,), "list")]


def test_captions_find_their_images_and_classes() -> None:
    written = {
        ("data/x/cafe\u0301.jpg", "Cat"): "a cat",
        ("data/x/cafe\u0301.jpg", "cat"): "",
        ("data/x/cafe\u0301.jpg", "dog"): "",
        ("data/x/cafe\u0301.jpg", ""): "two animals",
        ("b.png", "kitten"): "a kitten",
        ("b.png", "unheard of"): "nothing",
        ("c", "cat"): "of another image",
    }
    assert match_captions(written, ENTRIES, load_vocabulary("voc"), "captions") == {
        ("x/café", "cat"): "a cat",
        ("x/café", "dog"): "",
        ("x/café", ""): "two animals",
        ("b", "cat"): "a kitten",
    }


def test_captions_of_other_images_name_both_sides() -> None:
    written = {("z", "cat"): "a cat", ("y", "cat"): "a cat"}
    with pytest.raises(
        SourceError, match=r"of none .*: its keys are 'z', 'y' with classes 'cat', .* 'x/café', 'b'; it"
    ):
        check_images(written, {}, ENTRIES, "captions")
    check_images({}, {}, ENTRIES, "captions")
    check_images(written, {("b", "cat"): "a cat"}, ENTRIES, "captions")


def test_captions_of_whole_images_are_told_from_those_of_classes() -> None:
    with pytest.raises(
        SourceError, match=r"lacks 3 of 3 .* an empty class are of the whole image, which `method` diffs"
    ):
        check_complete({("x/café", ""): "two animals"}, ENTRIES, load_vocabulary("voc"), "captions")


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
