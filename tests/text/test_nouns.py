import sys
from pathlib import Path

import pytest
from spacy.language import Language

from pseudolabel.errors import ModelError
from pseudolabel.text.nouns import find_nouns, load_pipeline
from tests.plain.pipeline import TAGGING, train_pipeline

CAPTIONS = ["two dogs run near the dining tables", "A red star", "men with cups near Rome", "", "runs on"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return load_pipeline(str(train_pipeline(tmp_path_factory.mktemp("pipeline"))))


@pytest.mark.slow
def test_lemmas_of_nouns_and_compounds(pipeline: Language) -> None:
    assert find_nouns(pipeline, CAPTIONS) == [["dog", "dining table"], ["star"], ["man", "cup", "rome"], [], []]


def test_nothing_to_look_through(pipeline: Language) -> None:
    assert find_nouns(pipeline, []) == []
    assert find_nouns(pipeline, ["", " "]) == [[], []]


@pytest.mark.slow
def test_a_compound_ends_with_its_chunk(pipeline: Language, tmp_path: Path) -> None:
    """Only a parser tells that a dog and stars are two things here."""
    sentence = "the man gives a dog stars"
    assert find_nouns(pipeline, [sentence]) == [["man", "dog star"]]
    parsing = load_pipeline(str(train_pipeline(tmp_path, (*TAGGING, "parser"))))
    assert find_nouns(parsing, [sentence, "a dining table with cups"]) == [
        ["man", "dog", "star"],
        ["dining table", "cup"],
    ]


@pytest.mark.slow
def test_the_text_where_there_are_no_lemmas(tmp_path: Path) -> None:
    pipeline = load_pipeline(str(train_pipeline(tmp_path, ("morphologizer",))))
    assert find_nouns(pipeline, CAPTIONS[:2]) == [["dogs", "dining tables"], ["star"]]


@pytest.mark.slow
def test_a_pipeline_without_parts_of_speech(tmp_path: Path) -> None:
    pipeline = load_pipeline(str(train_pipeline(tmp_path, ("trainable_lemmatizer",))))
    with pytest.raises(ModelError, match=r"`filter\.spacy`\) does not predict parts of speech"):
        find_nouns(pipeline, CAPTIONS)


@pytest.mark.parametrize("name", ["en_core_web_none", "empty"])
def test_a_pipeline_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    wanted = str(tmp_path / name) if name == "empty" else name
    with pytest.raises(ModelError, match=rf"`filter\.spacy`.*python -m spacy download .*{name}"):
        load_pipeline(wanted)


def test_without_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)  # an import fails, as it does where spaCy is not installed
    with pytest.raises(ModelError, match=r"pip install 'pseudolabel\[open-vocabulary\]'.*`filter\.nouns` none"):
        load_pipeline("en_core_web_sm")
