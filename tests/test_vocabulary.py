from pathlib import Path

import pytest

from pseudolabel.text.class_rules import classes_of_spellings
from pseudolabel.vocabulary import Vocabulary, VocabularyError, load_vocabulary


def write(path: Path, text: str) -> Vocabulary:
    path.write_text(text)
    return load_vocabulary(str(path))


def test_a_vocabulary_without_background(tmp_path: Path) -> None:
    with_background = write(tmp_path / "a.yaml", "classes: [dog, cat]")
    without = write(tmp_path / "b.yaml", "background: false\nclasses: [dog, cat]")
    assert (with_background.has_background, without.has_background) == (True, False)
    assert with_background.names == ("background", "dog", "cat")
    assert without.names == ("unlabelled", "dog", "cat")
    with pytest.raises(VocabularyError, match=r"background 'maybe' must be true or false"):
        write(tmp_path / "c.yaml", "background: maybe\nclasses: [dog]")


def test_labels_of_a_data_sets_names(tmp_path: Path) -> None:
    """Own names count, in any spelling; prompts and synonyms do not; the rest is background."""
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
def test_the_vocabularies_of_things(name: str, count: int) -> None:
    vocabulary = load_vocabulary(name)
    assert len(vocabulary) == count
    assert vocabulary.has_background
    for index, entry in enumerate(vocabulary.classes, 1):
        for spelling in (entry.name, entry.prompt, *entry.synonyms):
            assert vocabulary.index(spelling) == index, f"'{spelling}' stands for two classes"


def test_synonyms_of_captions() -> None:
    """What captioners write for a class, and what only sounds like one."""
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


def test_background_words_are_no_classes() -> None:
    for name in ("shapes", "voc", "coco"):
        vocabulary = load_vocabulary(name)
        assert "grass" in vocabulary.background_words
        assert not [word for word in vocabulary.background_words if vocabulary.find(word) is not None]


def test_typed_names_bring_background_words_that_are_none_of_them() -> None:
    words = load_vocabulary("voc").background_words
    assert load_vocabulary("dog, grass").background_words == tuple(word for word in words if word != "grass")
