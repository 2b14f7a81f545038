from pathlib import Path

import pytest

from pseudolabel.errors import VocabularyError
from pseudolabel.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "classes: [circle, red car]"),
        ("a.yaml", "name: mine\nclasses: {0: circle, 1: red car}"),
        ("a.yaml", "classes: {2: red car, 1: circle}"),
        ("a.yml", "- circle\n- red car\n"),
        ("a.yaml", "nc: 2\nnames: [circle, red car]\npath: ../data\ntrain: images"),
        ("a.yaml", "names:\n  0: circle\n  1: red car\n"),
        ("a.json", '{"0": "circle", "1": "red car"}'),
        ("a.json", '\ufeff{"classes": ["circle", {"name": "red car"}]}'),
        ("a.txt", "circle\nred car\n"),
        ("a.names", "\ufeffcircle\r\n\r\n red car \r\n"),
        ("a", "circle\nred car"),
    ],
)
def test_every_form_of_two_classes(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    vocabulary = load_vocabulary(str(path))
    assert vocabulary.names == ("background", "circle", "red car")
    assert vocabulary.name == ("mine" if "mine" in text else "a")
    assert vocabulary.prompt(2) == "red car"


def test_all_fields(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: mine\ntemplate: my {}\nbackground: false\nbackground_words: [grass]\n"
        "classes: [{name: sofa, prompt: couch, synonyms: [settee]}, '7']\n"
    )
    vocabulary = load_vocabulary(str(tmp_path / "a.yaml"))
    assert vocabulary.names == ("unlabelled", "sofa", "7")
    assert (vocabulary.template, vocabulary.background_words) == ("my {}", ("grass",))
    assert [vocabulary.index(word) for word in ("sofa", "couch", "settee", "7")] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("classes: [background, dog]", "class 1 is 'background', but background is index 0 already"),
        ("classes: dog, cat", r"classes is the text 'dog, cat'; write a list, such as \[dog, red car\]"),
        ("classes:", r"classes is empty \(null\); write a list"),
        ("classes: 20", "classes is the number 20; write a list"),
        ("classes: []", "0 classes; a uint8 mask holds 1 to 254"),
        ("classes: [" + ", ".join(f"c{number}" for number in range(255)) + "]", "255 classes; a uint8 mask holds"),
        ("classes: [0, 1, 2]", 'class 1 is the number 0; put it in quotes if it is a name: "0"'),
        ("classes: [dog, no]", "class 2 is false; YAML reads yes, no, on and off as true and false"),
        ("classes: [dog, null]", r"class 2 is empty \(null\); write a name"),
        ("classes: [dog, [cat]]", "class 2 is a list; write a name"),
        ('classes: [dog, ""]', r"class 2 has a blank name \(''\)"),
        ('classes: [dog, "\u200b"]', r"class 2 has a blank name \('.u200b'\)"),
        ("classes: [dog, cat, Dog]", "class 'Dog' is listed twice"),
        ("classes: {1: dog, 3: cat}", r"indices \[1, 3\] are not consecutive from 0 or 1"),
        ("classes: {dog: 0, cat: 1}", "a dict whose keys are not indices; write index: name"),
        ("classes: [{prompt: dog}]", "class 1: no name; write {name: dog"),
        ("classes: [{name: dog, prompt: null}]", r"prompt of 'dog' is empty \(null\)"),
        ("classes: [{name: 7}]", "class 1 is the number 7"),
        ("classes: [{name: dog, synonyms: puppy}]", "synonyms of 'dog' is the text 'puppy'; write a list"),
        ("classes: [{name: dog, synonym: [puppy]}]", "class 1: unknown field 'synonym'; a class has name, prompt, syn"),
        (
            "classes: [{name: bird, synonyms: [crane]}, {name: lift, synonyms: [Crane]}]",
            "'Crane' stands for two classes, 'bird' and 'lift'; keep it with one",
        ),
        ("classes: [dog]\nbackground_words: grass", "background_words is the text 'grass'; write a list"),
        ("classes: [dog]\nbackground_words: [1]", "background word 1 is the number 1"),
        ("classes: [dog]\ntemplates: a {}", "unknown field 'templates'; a vocabulary has name, classes, template"),
        ("classes: [dog]\nname: 7", "the vocabulary's name is the number 7"),
        ("classes: [dog]\ntemplate: a photo", "template 'a photo' needs exactly one {} for the class"),
        ("classes: [dog]\ntemplate: a {} and {}", "needs exactly one {} for the class"),
        ("classes: [dog]\ntemplate: a {kind} of {}", "needs exactly one {} for the class, and no other braces"),
        ("classes: [dog]\ntemplate: 'a }{ {}'", "and no other braces"),
        ("classes: [dog]\ntemplate:", r"template None is not text; write a sentence with {}"),
        ("classes: [dog]\nbackground: 'no'", "background 'no' must be true or false"),
        ("nc: 3\nnames: [dog, cat]", "nc is 3, but names holds 2 classes"),
        ("names: data/coco.names", "classes is the text 'data/coco.names'; write a list"),
        ("dog cat", "the file holds the text 'dog cat' and no classes; write a list of names"),
        ("", r"the file holds empty \(null\) and no classes"),
        ("labels: [dog]", "no classes in it; found labels; write a list of names"),
        ("classes: [dog", "not YAML"),
    ],
)
def test_invalid_vocabularies_are_explained(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(VocabularyError, match=rf"a\.yaml: .*{reason}"):
        load_vocabulary(str(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("classes:\n- dog\n", "this looks like YAML; give it a name that ends in .yaml"),
        ("dog, cat\n", "all classes are in one line; write one class per line"),
        ("0 dog\n1 cat\n", "the lines begin with numbers, such as '0 dog'; write only the names"),
        ("1: dog\n2: cat\n", "the lines begin with numbers"),
        ("__ignore__\n_background_\ndog\n", "class 1 is '__ignore__', but ignored pixels are 255"),
        ("\n", "0 classes"),
    ],
)
def test_invalid_lines(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(VocabularyError, match=rf"names\.txt: {reason}"):
        load_vocabulary(str(tmp_path / "names.txt"))


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("étoile".encode("cp1252"))
    with pytest.raises(VocabularyError, match=r"a\.txt: not UTF-8 text .* save it as UTF-8"):
        load_vocabulary(str(tmp_path / "a.txt"))
