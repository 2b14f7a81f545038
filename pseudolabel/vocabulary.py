"""Vocabularies: class names, prompt names, synonyms and palettes."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from pseudolabel import vocabulary_file
from pseudolabel.errors import VocabularyError
from pseudolabel.records import BACKGROUND

MAX_CLASSES = 254  # 0 is background and 255 is ignored in a uint8 mask
_SHOWN = 12  # names in a message
_RESERVED = {"background": "background is index 0 already", "ignore": "ignored pixels are 255 already"}
_FILE_NAME = re.compile(r"[/\\]|\.\w{1,5}$")  # matches file names, but no class names


@dataclass(frozen=True)
class ClassEntry:
    """One class: its `name` in data sets, its `prompt` name in sentences, and `synonyms`."""

    name: str
    prompt: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """The ordered classes of a data set; index 0 is background, `classes[i]` has index i + 1.

    Attributes:
        name: short identifier, such as `voc`.
        classes: the entries without background.
        template: sentence with one `{}` for the prompt name.
        has_background: whether index 0 is a background class; otherwise it marks unlabelled pixels.
        background_words: names of background content, such as grass; they compete with the classes when regions are
            named.

    Raises:
        VocabularyError: if there is no class or more than 254, a name is blank or stands for two classes, background is
            listed as a class, or the template does not have exactly one `{}`.
    """

    name: str
    classes: tuple[ClassEntry, ...]
    template: str = "a photograph of {}"
    has_background: bool = True
    background_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise VocabularyError(problem)

    def __len__(self) -> int:
        """Number of classes without background."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by index, background (or `unlabelled`, where there is none) first."""
        return ("background" if self.has_background else "unlabelled", *(entry.name for entry in self.classes))

    def prompt(self, index: int) -> str:
        """Prompt name of class `index` (1..N)."""
        return self.classes[index - 1].prompt

    @cached_property
    def _index_of(self) -> dict[str, int]:
        """Index by every spelling; a class's own name wins over another class's synonym."""
        spellings: dict[str, int] = {}
        for field in ("name", "prompt", "synonyms"):
            for index, entry in enumerate(self.classes, 1):
                value = getattr(entry, field)
                for spelling in value if field == "synonyms" else (value,):
                    spellings.setdefault(_fold(spelling), index)
        return spellings

    def index(self, name: str) -> int:
        """Index (1..N) of a class by name, prompt name or synonym.

        Case, spaces, `-`, `_`, invisible characters and the way accents are encoded do not matter.

        Raises:
            VocabularyError: if the name is unknown; the message suggests the nearest one.
        """
        found = self.find(name)
        if found is None:
            raise VocabularyError(self._unknown(name))
        return found

    def find(self, name: str) -> int | None:
        """As `index`, but None for an unknown name."""
        return self._index_of.get(_fold(name))

    def labels_of(self, names: Sequence[str]) -> list[int]:
        """The label of each class of a data set's ground truth; background for classes that are not in the vocabulary.

        Only class names match, not synonyms, because a data set may have a separate class for a synonym.

        Raises:
            VocabularyError: if the data set lacks a class of the vocabulary.
        """
        own = {_fold(entry.name): index for index, entry in enumerate(self.classes, 1)}
        missing = own.keys() - {_fold(name) for name in names}
        if missing:
            first = self.names[min(own[name] for name in missing)]
            raise VocabularyError(f"the ground truth has no class '{first}' of vocabulary '{self.name}'")
        return [own.get(_fold(name), BACKGROUND) for name in names]

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(_fold(name), self._index_of, n=1, cutoff=0.6)
        hint = f"did you mean '{self.names[self._index_of[near[0]]]}'?" if near else f"known: {self.listed}"
        shown = f"'{name:.80}'" if _fold(name) else ascii(name)
        return f"unknown class {shown} in vocabulary '{self.name}'; {hint}"

    @property
    def listed(self) -> str:
        """The names for a message; only the first of many."""
        names = self.names[1:]
        more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more

    @cached_property
    def palette(self) -> np.ndarray:
        """uint8 (256, 3): the colour of every label in PASCAL VOC's colour map."""
        return voc_palette()


def _fold(name: str) -> str:
    """A name's canonical form for comparison; empty if it has no visible characters."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "".join(letter for letter in composed if letter not in "-_" and not _is_invisible(letter))


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) == "Cf"  # such as the zero-width space


def template_problem(template: object) -> str | None:
    """Why a template is not a sentence with one `{}` for the class; None if it is one."""
    if not isinstance(template, str):
        return f"{template!r:.80} is not text; write a sentence with {{}} for the class"
    if template.count("{}") != 1 or set(template.replace("{}", "")) & set("{}"):
        return f"'{template}' needs exactly one {{}} for the class, and no other braces"
    return None


def _problems(vocabulary: Vocabulary) -> Iterator[str]:
    """Messages of all reasons why a vocabulary is invalid."""
    classes = vocabulary.classes
    if not 1 <= len(classes) <= MAX_CLASSES:
        yield f"{len(classes)} classes; a uint8 mask holds 1 to {MAX_CLASSES}"
    if vocabulary.has_background not in (True, False):
        yield f"background '{vocabulary.has_background}' must be true or false"
    if problem := template_problem(vocabulary.template):
        yield f"template {problem}"
    for number, entry in enumerate(classes, 1):
        for word in (entry.name, entry.prompt, *entry.synonyms):
            if not _fold(word):
                yield f"class {number} has a blank name ({word!a}); write its name"
        if vocabulary.has_background and _fold(entry.name) in _RESERVED:
            yield f"class {number} is '{entry.name}', but {_RESERVED[_fold(entry.name)]}; leave it out of the classes"
    yield from _repeated(vocabulary)


def _repeated(vocabulary: Vocabulary) -> Iterator[str]:
    """Names that are listed twice, and prompts and synonyms that two classes share."""
    owners: dict[str, str] = {}
    for entry in vocabulary.classes:
        if _fold(entry.name) in owners:
            yield f"class '{entry.name}' is listed twice"
        owners[_fold(entry.name)] = entry.name
    for field in ("prompt", "synonyms"):
        found: dict[str, str] = {}
        for entry in vocabulary.classes:
            value = getattr(entry, field)
            for word in {_fold(word): word for word in ((value,) if field == "prompt" else value)}.values():
                other = found.setdefault(_fold(word), entry.name)
                if other != entry.name and _fold(word) not in owners:
                    yield f"'{word}' stands for two classes, '{other}' and '{entry.name}'; keep it with one of them"


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (256, 3): bits 3k, 3k + 1, 3k + 2 of a label are bit 7 - k of red, green, blue."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def load_vocabulary(name: str) -> Vocabulary:
    """Load a shipped vocabulary by name, such as `voc`, or make one from a file or from class names.

    Args:
        name: a shipped vocabulary; a file as `vocabulary_file.parse` describes; or class names with commas, such as
            `dog, red car`. A single name is a class, too, unless it looks like a file or resembles a shipped
            vocabulary's name; with a comma after it, it is always a class: `vocal,`.

    Raises:
        VocabularyError: if there is no such vocabulary, or the file or the names are invalid.
    """
    shipped = _shipped().get(name)
    if shipped is not None:
        return _parse(shipped.read_bytes(), f"{name}.yaml")
    names = typed_names(name)
    if names is not None:
        try:
            return vocabulary_of(names)
        except VocabularyError as error:
            raise VocabularyError(f"vocabulary '{name:.80}': {error}") from error
    try:
        return _parse(Path(name).read_bytes(), name)
    except OSError as error:
        raise VocabularyError(f"vocabulary '{name}' cannot be read: {error}") from error


def _parse(data: bytes, path: str) -> Vocabulary:
    try:
        fields = vocabulary_file.parse(data.decode("utf-8-sig"), path)
        classes = tuple(ClassEntry(*entry) for entry in fields.classes)
        return Vocabulary(**{"name": Path(path).stem, "classes": classes, **fields.others})
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except ValueError as error:
        raise VocabularyError(f"{path}: {error}") from error


def typed_names(name: str) -> list[str] | None:
    """The class names in `name`; None if it is the name of a vocabulary or a file.

    Raises:
        VocabularyError: if it is none of these, such as a missing file.
    """
    if name in _shipped() or os.path.isfile(name):
        return None
    if "," in name:
        return [word for word in name.split(",") if word.strip()]
    near, as_class = _near_shipped(name), f"for a class of that name write '{name},'"
    if not _fold(name) or _FILE_NAME.search(name):
        raise VocabularyError(
            f"no file or vocabulary '{name}': shipped are {', '.join(sorted(_shipped()))}; or give a YAML file, or "
            f"class names such as 'dog, red car'{f'; {as_class}' if _fold(name) else ''}"
        )
    if near is not None:
        raise VocabularyError(f"no vocabulary '{name}': did you mean '{near}'? Or {as_class}")
    return [name]


def _shipped() -> dict[str, Traversable]:
    """The files of the shipped vocabularies, by name."""
    return {Path(entry.name).stem: entry for entry in (resources.files(__package__) / "vocabularies").iterdir()}


def _near_shipped(name: str) -> str | None:
    """The shipped vocabulary that was probably meant: VOC, voc2012, vco."""
    words = re.findall(r"[a-z]+", name.casefold())
    for shipped in sorted(_shipped()):
        letters = re.sub(r"[^a-z]", "", shipped)
        typed = "".join(words)
        alike = difflib.SequenceMatcher(None, typed, letters).ratio() >= 0.8 or sorted(typed) == sorted(letters)
        if letters in words or (typed and alike):
            return shipped
    return None


def vocabulary_of(names: Sequence[str], name: str = "custom") -> Vocabulary:
    """A vocabulary of classes by name, with the background words of `voc`.

    Args:
        names: of the classes, in the order of their indices.
        name: of the vocabulary.

    Raises:
        VocabularyError: if a name is invalid; the message says which.
    """
    try:
        words = [vocabulary_file.read_text(word, f"class {number}") for number, word in enumerate(names, 1)]
    except ValueError as error:
        raise VocabularyError(str(error)) from error
    own = {_fold(word) for word in words}
    others = tuple(word for word in load_vocabulary("voc").background_words if _fold(word) not in own)
    return Vocabulary(name, tuple(ClassEntry(word, word) for word in words), background_words=others)
