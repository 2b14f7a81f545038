"""Vocabularies: class names, the names used in prompts, synonyms and palettes."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import yaml

from pseudolabel.errors import UserError
from pseudolabel.records import BACKGROUND

MAX_CLASSES = 254  # 0 is background and 255 is ignored in a uint8 mask


class VocabularyError(UserError, ValueError):
    """A vocabulary file or a class name cannot be used."""


@dataclass(frozen=True)
class ClassEntry:
    """One class: its `name` in data sets, its `prompt` name in sentences, and `synonyms` people use for it."""

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
        has_background: whether index 0 is a label of its own; where the classes cover everything it only says that no
            label was given.
        background_words: what else images show, such as grass; the words compete with the classes where regions are
            named.
    """

    name: str
    classes: tuple[ClassEntry, ...]
    template: str = "a photograph of {}"
    has_background: bool = True
    background_words: tuple[str, ...] = ()

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
        """Index (1..N) of a class by name, prompt name or synonym; case, spaces, `-` and `_` do not matter.

        Raises:
            VocabularyError: if no class is called so; the message offers the nearest name.
        """
        found = self.find(name)
        if found is None:
            raise VocabularyError(self._unknown(name))
        return found

    def find(self, name: str) -> int | None:
        """The same, but None if no class is called so."""
        return self._index_of.get(_fold(name))

    def labels_of(self, names: Sequence[str]) -> list[int]:
        """What a data set's ground truth holds where it names these classes.

        Only a class's own name counts, not its synonyms: a desk that the data set tells from tables is no table. What
        is no class here is background.

        Raises:
            VocabularyError: if the data set does not know a class, which could then never be found right.
        """
        own = {_fold(entry.name): index for index, entry in enumerate(self.classes, 1)}
        strange = own.keys() - {_fold(name) for name in names}
        if strange:
            first = self.names[min(own[name] for name in strange)]
            raise VocabularyError(f"the ground truth has no class '{first}' of vocabulary '{self.name}'")
        return [own.get(_fold(name), BACKGROUND) for name in names]

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(_fold(name), self._index_of, n=1, cutoff=0.6)
        hint = (
            f"did you mean '{self.names[self._index_of[near[0]]]}'?" if near else f"known: {', '.join(self.names[1:])}"
        )
        return f"unknown class '{name}' in vocabulary '{self.name}'; {hint}"

    @cached_property
    def palette(self) -> np.ndarray:
        """uint8 (256, 3): the colour of every label value, as PASCAL VOC numbers them."""
        return voc_palette()


def _fold(name: str) -> str:
    return "".join(character for character in name.casefold() if character not in " -_")


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (256, 3): the bits of a label are dealt to red, green and blue in turn."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def load_vocabulary(name: str) -> Vocabulary:
    """Load a shipped vocabulary by name, such as `voc`, the user's own from a YAML file, or from names with commas.

    Raises:
        VocabularyError: if there is no such vocabulary or the file does not describe one.
    """
    shipped = {Path(entry.name).stem: entry for entry in (resources.files(__package__) / "vocabularies").iterdir()}
    if name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    elif "," in name:
        text = _typed([word.strip() for word in name.split(",") if word.strip()])
    else:
        raise VocabularyError(
            f"no vocabulary '{name}': shipped are {', '.join(sorted(shipped))}; or give a YAML file, or names with "
            "commas such as 'dog, red car'"
        )
    return _parse(name, text)


def _typed(names: list[str]) -> str:
    """A vocabulary of classes by name; what else its images show is what else photographs show."""
    others = [word for word in load_vocabulary("voc").background_words if word not in names]
    return yaml.safe_dump({"name": "custom", "classes": names, "background_words": others})


def _parse(name: str, text: str) -> Vocabulary:
    try:
        data = yaml.safe_load(text)
        entries = [{"name": item} if isinstance(item, str) else item for item in data["classes"]]
        classes = tuple(
            ClassEntry(e["name"], e.get("prompt", e["name"]), tuple(e.get("synonyms", ()))) for e in entries
        )
        vocabulary = Vocabulary(
            data.get("name", Path(name).stem),
            classes,
            data.get("template", Vocabulary.template),
            data.get("background", Vocabulary.has_background),
            tuple(data.get("background_words", ())),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise VocabularyError(f"{name}: not a vocabulary ({error!r}); it needs 'classes', a list of names") from error
    _check(name, vocabulary)
    return vocabulary


def _check(name: str, vocabulary: Vocabulary) -> None:
    folded = [_fold(entry.name) for entry in vocabulary.classes]
    repeated = sorted({entry for entry in folded if folded.count(entry) > 1})
    if repeated:
        raise VocabularyError(f"{name}: class '{repeated[0]}' is listed twice")
    if not 1 <= len(folded) <= MAX_CLASSES:
        raise VocabularyError(f"{name}: {len(folded)} classes; a uint8 mask holds 1 to {MAX_CLASSES}")
    if not isinstance(vocabulary.has_background, bool):
        raise VocabularyError(f"{name}: background '{vocabulary.has_background}' must be true or false")
    if vocabulary.template.count("{}") != 1:
        raise VocabularyError(f"{name}: template '{vocabulary.template}' needs exactly one {{}} for the class")
