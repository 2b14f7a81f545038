import unicodedata
from pathlib import Path

import pytest

from pseudolabel.errors import VocabularyError
from pseudolabel.text.class_rules import classes_of_spellings
from pseudolabel.vocabulary import ClassEntry, Vocabulary, load_vocabulary, typed_names, vocabulary_of


def write(path: Path, text: str) -> Vocabulary:
    path.write_text(text, encoding="utf-8")
    return load_vocabulary(str(path))


def test_a_vocabulary_without_background(tmp_path: Path) -> None:
    with_background = write(tmp_path / "a.yaml", "classes: [dog, cat]")
    without = write(tmp_path / "b.yaml", "background: false\nclasses: [dog, cat]")
    assert (with_background.has_background, without.has_background) == (True, False)
    assert with_background.names == ("background", "dog", "cat")
    assert without.names == ("unlabelled", "dog", "cat")
    with pytest.raises(VocabularyError, match=r"background 'maybe' must be true or false"):
        write(tmp_path / "c.yaml", "background: maybe\nclasses: [dog]")


def test_labels_of_a_data_sets_class_names(tmp_path: Path) -> None:
    """Names match in any spelling; prompts and synonyms do not; other classes are background."""
    vocabulary = write(tmp_path / "a.yaml", "classes: [{name: pottedplant, prompt: plant, synonyms: [flower]}, table]")
    names = ["table", "plant", "Potted Plant", "flower", "potted-plant"]
    assert vocabulary.labels_of(names) == [2, 0, 1, 0, 1]
    with pytest.raises(VocabularyError, match="the ground truth has no class 'pottedplant' of vocabulary 'a'"):
        vocabulary.labels_of(["plant", "sky"])


@pytest.mark.parametrize("name", ["coco27", "cityscapes27"])
def test_the_vocabularies_of_27_classes(name: str) -> None:
    vocabulary = load_vocabulary(name)
    assert len(vocabulary) == 27
    assert not vocabulary.has_background
    for index, entry in enumerate(vocabulary.classes, 1):
        for spelling in (entry.name, entry.prompt, *entry.synonyms):
            assert vocabulary.index(spelling) == index, f"'{spelling}' stands for two classes"


@pytest.mark.parametrize(("name", "count"), [("voc", 20), ("coco", 80), ("context", 59), ("shapes", 6)])
def test_the_vocabularies_with_background(name: str, count: int) -> None:
    vocabulary = load_vocabulary(name)
    assert len(vocabulary) == count
    assert vocabulary.has_background
    for index, entry in enumerate(vocabulary.classes, 1):
        for spelling in (entry.name, entry.prompt, *entry.synonyms):
            assert vocabulary.index(spelling) == index, f"'{spelling}' stands for two classes"


def test_synonyms_in_captions() -> None:
    """Captioners' words for a class, and similar words for other things."""
    voc, coco, context = (load_vocabulary(name) for name in ("voc", "coco", "context"))
    assert voc.names[classes_of_spellings(["double decker"], voc)[0]] == "bus"
    assert voc.names[classes_of_spellings(["pit bull"], voc)[0]] == "dog"
    assert voc.names[classes_of_spellings(["train car"], voc)[0]] == "train"
    assert voc.names[classes_of_spellings(["sports car"], voc)[0]] == "car"
    assert coco.names[classes_of_spellings(["teddy bear"], coco)[0]] == "teddy bear"
    assert coco.names[classes_of_spellings(["street sign", "stop sign"], coco)[0]] == "stop sign"
    assert context.names[classes_of_spellings(["book shelves"], context)[0]] == "shelves"
    for noun in ("bus stop", "coach", "fire truck", "car seat", "dog house", "bottle opener", "plane ticket"):
        assert classes_of_spellings([noun], voc) == ()


def test_background_words_are_not_classes() -> None:
    for name in ("shapes", "voc", "coco"):
        vocabulary = load_vocabulary(name)
        assert "grass" in vocabulary.background_words
        assert not [word for word in vocabulary.background_words if vocabulary.find(word) is not None]


def test_typed_names_are_removed_from_background_words() -> None:
    words = load_vocabulary("voc").background_words
    assert load_vocabulary("dog, grass").background_words == tuple(word for word in words if word != "grass")


ETOILE, CAFE = (
    {form: unicodedata.normalize(form, word) for form in ("NFC", "NFD")} for word in ("étoile", "Ångström café")
)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_accents_match_in_any_encoding(tmp_path: Path, written: str, asked: str) -> None:
    vocabulary = write(tmp_path / "a.yaml", f"classes: [dog, {ETOILE[written]}, {CAFE[written]}]")
    assert vocabulary.names[2:] == (ETOILE["NFC"], CAFE["NFC"])
    assert vocabulary.index(ETOILE[asked]) == 2
    assert vocabulary.index(CAFE[asked].upper()) == 3
    assert vocabulary.index("\u200bdo\xadg\xa0") == 1
    assert vocabulary.labels_of(["dog", CAFE[asked], ETOILE[asked]]) == [1, 3, 2]
    with pytest.raises(VocabularyError, match="is listed twice"):
        vocabulary_of([ETOILE[written], ETOILE[asked]])


def test_messages_list_few_known_names() -> None:
    with pytest.raises(
        VocabularyError, match=r"unknown class 'qqq' in vocabulary 'coco'; known: person, .*\(80 in all\)$"
    ):
        load_vocabulary("coco").index("qqq")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("dog", ["dog"]),
        ("dog,", ["dog"]),
        ("red car", ["red car"]),
        ("vocal,", ["vocal"]),
        ("St. John", ["St. John"]),
        ("coconut", ["coconut"]),
        (", ".join(f"thing number {number}" for number in range(36)), [f"thing number {n}" for n in range(36)]),
    ],
)
def test_names_instead_of_a_vocabulary(name: str, names: list[str]) -> None:
    """36 names exceed the length limit of file names."""
    assert load_vocabulary(name).names == ("background", *names)
    assert [word.strip() for word in typed_names(name) or ()] == names


def test_names_of_vocabularies_and_files_are_not_classes(tmp_path: Path) -> None:
    write(tmp_path / "mine", "dog\ncat\n")
    for name in ("voc", str(tmp_path / "mine")):
        assert typed_names(name) is None


@pytest.mark.parametrize("name", ["vco", "VOC", "voc2012", "pascal-voc", "shape", "Cityscapes", "cocoa"])
def test_names_similar_to_shipped_vocabularies_are_refused(name: str) -> None:
    with pytest.raises(
        VocabularyError, match=f"no vocabulary '{name}': did you mean '.*for a class .* write '{name},'"
    ):
        load_vocabulary(name)
    assert load_vocabulary(f"{name},").names == ("background", name)


@pytest.mark.parametrize("name", ["my.yaml", "a/b", "names.txt", "a\\b", "", " "])
def test_names_similar_to_files_are_refused(name: str) -> None:
    with pytest.raises(VocabularyError, match=r"no file or vocabulary .* shipped are .* or class names such as"):
        load_vocabulary(name)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("dog, cat, Dog", "vocabulary 'dog, cat, Dog': class 'Dog' is listed twice"),
        ("background, dog", "class 1 is 'background', but background is index 0 already; leave it out"),
        ("dog,__ignore__", "class 2 is '__ignore__', but ignored pixels are 255"),
        (",", "0 classes; a uint8 mask holds 1 to 254"),
        ("dog,\u200b", r"class 2 has a blank name \('\\u200b'\)"),
        ("dog,a\nb", "class 2, 'a.nb', holds a line break"),
    ],
)
def test_invalid_names(names: str, reason: str) -> None:
    with pytest.raises(VocabularyError, match=reason):
        load_vocabulary(names)


def test_a_vocabulary_from_python_is_checked() -> None:
    assert vocabulary_of(["dog, black", "cat"]).names == ("background", "dog, black", "cat")
    with pytest.raises(VocabularyError, match="class 1 is the number 7"):
        vocabulary_of([7])  # type: ignore[list-item]
    with pytest.raises(VocabularyError, match=r"needs exactly one {} for the class, and no other braces"):
        Vocabulary("a", (ClassEntry("dog", "dog"),), template="a {kind} of {}")
