"""Work units: fixed slices of the sorted input list, which do not depend on the number of processes."""

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
    """A fixed slice of the sorted input list, written as one shard."""

    number: int
    entries: Sequence[T]


def cut_units(entries: Sequence[Entry], size: int) -> list[Unit[Entry]]:
    """Cut the sorted list into units of `size` samples; the last one may be smaller.

    Raises:
        SettingError: if `size` is not positive.
    """
    if size < 1:
        raise SettingError(f"`work.unit` {size}: give at least 1")
    return [Unit(start // size, entries[start : start + size]) for start in range(0, len(entries), size)]


class UnitDigests:
    """Digests of the inputs of units; the digest of a complete unit is computed once.

    Args:
        describe: gives what results depend on of an entry, as JSON values.
    """

    def __init__(self, describe: Callable[[Entry], Any]) -> None:
        self._describe = describe
        self._complete: dict[int, str] = {}

    def __call__(self, unit: Unit[Entry], without: frozenset[str] = frozenset()) -> str:
        """Digest of a unit, leaving out the keys in `without`: failed samples, which may be corrected."""
        if without:
            return digest([self._describe(entry) for entry in unit.entries if entry.key not in without])
        if unit.number not in self._complete:
            self._complete[unit.number] = digest(list(map(self._describe, unit.entries)))
        return self._complete[unit.number]


def describe_words(vocabulary: Vocabulary, with_synonyms: bool = False) -> dict[str, Any]:
    """Class names and prompt names in the order of the vocabulary, with synonyms on request, for the fingerprint."""
    words: dict[str, Any] = {
        "names": vocabulary.names,
        "prompts": [entry.prompt for entry in vocabulary.classes],
    }
    if with_synonyms:
        words["synonyms"] = [entry.synonyms for entry in vocabulary.classes]
    return words
