"""What a format of exports is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from pseudolabel.exports.sample import ALL, TRAIN, VAL, MaskSample
from pseudolabel.records import IGNORE
from pseudolabel.vocabulary import voc_palette

IGNORE_NAME = "ignore"


@dataclass(frozen=True)
class Classes:
    """The classes of the masks.

    Attributes:
        names: by label value; what 0 is called comes first.
        keeps_ignore: whether the masks keep 255 for pixels to ignore.
    """

    names: tuple[str, ...]
    keeps_ignore: bool = True

    @property
    def by_label(self) -> dict[int, str]:
        """Names by label value, `ignore` at 255 where the masks keep it."""
        return {**dict(enumerate(self.names)), **({IGNORE: IGNORE_NAME} if self.keeps_ignore else {})}

    def colour(self, label: int) -> tuple[int, int, int]:
        """RGB of a label, as PASCAL VOC numbers colours."""
        red, green, blue = _PALETTE[label].tolist()
        return red, green, blue

    def listed(self) -> list[dict[str, Any]]:
        """Id, name and colour of every label, as `classes.json` has them."""
        return [{"id": label, "name": name, "color": self.colour(label)} for label, name in self.by_label.items()]


_PALETTE: np.ndarray = voc_palette()


@dataclass(frozen=True)
class Settings:
    """What an export's files depend on, beside the samples.

    Attributes:
        classes: names and colours by label.
        share: of the samples that are for training; None where they are not split.
        name: of the exported folder, for what a format lets people see.
        pieces: whether each connected piece of a class is an instance of its own.
        polygons: whether outlines are written in place of run lengths.
        about: what is known of the run that made the masks: its `settings` and `about`.
    """

    classes: Classes
    share: float | None = None
    name: str = ""
    pieces: bool = False
    polygons: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that samples are in; one empty name where they are not split."""
        return (ALL,) if self.share is None else (TRAIN, VAL)


class Encoded(NamedTuple):
    """What becomes of a sample.

    Attributes:
        files: its own files by name.
        note: what the files about all samples need to know of it.
        row: its row in the file of its shard, where the format packs shards.
    """

    files: Mapping[str, bytes]
    note: Mapping[str, Any]
    row: Mapping[str, Any] | None = None


class Rows(Protocol):
    """Writes the rows of a shard into a file."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row, or hold it for a while."""

    def close(self) -> None:
        """Write the rest; the file itself stays open."""


class Packing(NamedTuple):
    """How a format packs the samples of a shard into files, one for each split.

    Attributes:
        name: of the file, by the shard's name and the split.
        open: begins to write rows into a file.
    """

    name: Callable[[str, str], str]
    open: Callable[[BinaryIO, Settings], Rows]


class Collected(Protocol):
    """All exported samples, for the files that are about all of them."""

    def notes(self, split: str) -> Iterator[Mapping[str, Any]]:
        """The notes of a split's samples, each with its `key`, in the order of the shards."""

    def parts(self) -> Iterator[tuple[str, Iterator[Mapping[str, Any]]]]:
        """The notes by shard: the shard's name without suffix, and its samples' notes."""

    def write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file that appears in the export when it is complete."""

    def read(self, name: str) -> bytes:
        """The bytes of a sample's file."""


@dataclass(frozen=True)
class Format:
    """A format of exports.

    Attributes:
        encode: turns a sample into files and a note.
        finish: writes the files that are about all samples.
        ignore: the label that pixels to ignore get by default; 255 keeps them.
        can_ignore: whether the format can keep pixels to ignore.
        options: of `pieces` and `polygons`, those that it knows.
        pack: how the samples of a shard become files; None where each sample has its own.
        check: raises SettingError where classes cannot be written in this format.
        needs: a package to import, and the extra that brings it; empty where none is needed.
    """

    encode: Callable[[MaskSample, Settings], Encoded]
    finish: Callable[[Collected, Settings], None]
    ignore: int = IGNORE
    can_ignore: bool = True
    options: frozenset[str] = frozenset()
    pack: Packing | None = None
    check: Callable[[Classes], None] = lambda classes: None
    needs: tuple[str, str] = ("", "")
