"""The nouns of captions, found by a spaCy pipeline."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel.errors import ModelError
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weights import files_digest

if TYPE_CHECKING:  # spaCy comes with the extra `open-vocabulary`
    from spacy.language import Language
    from spacy.tokens import Doc, Token

_NOUNS = ("NOUN", "PROPN")


def load_pipeline(name: str) -> "Language":
    """Load a spaCy pipeline by name or folder, or the small one that ships (`shapes`).

    Raises:
        ModelError: if spaCy or the pipeline is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise ModelError(
            f"captions' nouns need spaCy ({error}): pip install 'pseudolabel[open-vocabulary]', or go without them: "
            "`filter.nouns` none"
        ) from error
    try:
        return spacy.load(resolve(name, "nouns"), exclude=["ner"])
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load the spaCy pipeline '{name}' (`filter.spacy`): python -m spacy download {name}, or name the "
            f"folder of one.\n{type(error).__name__}: {error}"
        ) from error


def pipeline_digest(pipeline: "Language") -> str:
    """Digest of a loaded pipeline's files, wherever they lie."""
    return files_digest(Path(str(pipeline.path)))


def find_nouns(pipeline: "Language", sentences: Iterable[str]) -> list[list[str]]:
    """The nouns of each sentence as lower-case lemmas, in their order.

    Nouns that follow each other are one compound, such as `dining table`. Where the pipeline parses, a compound ends
    with its noun chunk.

    Raises:
        ModelError: if the pipeline does not predict parts of speech.
    """
    return [[_lemma(run) for run in _runs(doc)] for doc in pipeline.pipe(sentences)]


def _runs(doc: "Doc") -> Iterator[Sequence["Token"]]:
    if len(doc) and not doc.has_annotation("POS"):
        raise ModelError(
            "the spaCy pipeline (`filter.spacy`) does not predict parts of speech; choose one with a tagger or a "
            "morphologizer, such as en_core_web_sm"
        )
    starts = {chunk.start for chunk in doc.noun_chunks} if doc.has_annotation("DEP") else set()
    run: list[Token] = []
    for token in doc:
        is_noun = token.pos_ in _NOUNS and not token.is_space
        if run and (not is_noun or token.i in starts):
            yield run
            run = []
        if is_noun:
            run.append(token)
    if run:
        yield run


def _lemma(run: Sequence["Token"]) -> str:
    """The text itself where the pipeline has no lemmatizer."""
    return " ".join((token.lemma_ or token.text).lower() for token in run)
