"""Work units and ranks: who does what, without anybody asking anybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pseudolabel.errors import SettingError
from pseudolabel.io.json_text import digest
from pseudolabel.sources.entry import Entry
from pseudolabel.vocabulary import Vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class Unit(Generic[T]):
    """A fixed slice of the sorted input list; it becomes exactly one shard."""

    number: int
    entries: Sequence[T]


def cut_units(entries: Sequence[Entry], size: int) -> list[Unit[Entry]]:
    """Cut the sorted list into units of `size` samples; the last one may be smaller.

    Raises:
        SettingError: if `size` is not positive.
    """
    if size < 1:
        raise SettingError(f"`work.unit` {size}: a unit holds at least one sample")
    return [Unit(start // size, entries[start : start + size]) for start in range(0, len(entries), size)]


class UnitDigests:
    """Digests of what goes into the units of one list, each of a whole unit made once.

    Args:
        describe: what matters of an entry, ready for JSON.
    """

    def __init__(self, describe: Callable[[Entry], Any]) -> None:
        self._describe = describe
        self._whole: dict[int, str] = {}

    def __call__(self, unit: Unit[Entry], without: frozenset[str] = frozenset()) -> str:
        """Digest of a unit, leaving out the samples that failed, which may be corrected."""
        if without:
            return digest([self._describe(entry) for entry in unit.entries if entry.key not in without])
        if unit.number not in self._whole:
            self._whole[unit.number] = digest(list(map(self._describe, unit.entries)))
        return self._whole[unit.number]


def describe_words(vocabulary: Vocabulary, with_synonyms: bool = False) -> dict[str, Any]:
    """The class names and the names in prompts, in their order, for settings; synonyms where something reads them."""
    words: dict[str, Any] = {
        "names": vocabulary.names,
        "prompts": [entry.prompt for entry in vocabulary.classes],
    }
    if with_synonyms:
        words["synonyms"] = [entry.synonyms for entry in vocabulary.classes]
    return words
