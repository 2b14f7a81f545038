"""Ground-truth masks: where they are and how they are read.

Readers and locators are plain data, so that a source can be sent to worker processes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from pseudolabel.errors import SampleError, SourceError, VocabularyError
from pseudolabel.io.files import Location, is_file, is_folder, join, read_bytes
from pseudolabel.io.image_list import stem
from pseudolabel.io.images import read_mask
from pseudolabel.io.walk import find_images
from pseudolabel.sources.entry import Entry
from pseudolabel.vocabulary import Vocabulary

V = TypeVar("V")
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


class Mask(NamedTuple):
    """A mask as it was read.

    Attributes:
        labels: uint8 (H, W); 0 is background, 1..N are classes, 255 is ignored.
        origin: what it is and where it lies, for messages.
    """

    labels: np.ndarray
    origin: str


class MaskReader(Protocol):
    """Reads masks."""

    def __call__(self, entry: Entry, max_pixels: int) -> Mask | None:
        """Read the mask of an entry, of at most so many pixels; None where there is none. Raises `SampleError`."""

    def places(self, entry: Entry) -> list[str]:
        """The paths where the entry's mask is looked for, for messages."""


class MaskLocator(Protocol):
    """Finds the files of masks."""

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None where there is none."""

    def places(self, entry: Entry) -> list[str]:
        """The paths where the entry's mask is looked for, for messages."""


MaskDecoder = Callable[[bytes, str, int | None], np.ndarray]
"""Turns a file, its name for messages, and the largest number of pixels into integers (H, W), as `read_mask` does."""


@dataclass(frozen=True)
class MaskFiles:
    """Masks of one file each.

    Attributes:
        locate: gives the place of an entry's file, None where it has none.
        decode: the files' format.
        labels: label of each value that a file may hold; None where the values are labels already.
    """

    locate: MaskLocator
    decode: MaskDecoder = read_mask
    labels: Mapping[int, int] | None = None

    def __call__(self, entry: Entry, max_pixels: int) -> Mask | None:
        """Read the entry's mask.

        Raises:
            SampleError: `missing` where a file is named and not there, `unknown_class` where it holds a value that has
                no label, or what `decode` finds.
        """
        location = self.locate(entry)
        if location is None:
            return None
        origin = f"mask of '{entry.key}' in '{location.path}'"
        values = self.decode(read_bytes(location), origin, max_pixels)
        return Mask(values if self.labels is None else _translate(values, self.labels, origin), origin)

    def places(self, entry: Entry) -> list[str]:
        """The paths where the entry's mask is looked for."""
        return self.locate.places(entry)


def _translate(values: np.ndarray, labels: Mapping[int, int], origin: str) -> np.ndarray:
    """Values (H, W) to labels uint8 (H, W), through a table, since data sets have images of two million pixels."""
    table = np.array([labels.get(value, -1) for value in range(int(values.max()) + 1)], np.int16)
    found = table[values]
    if found.min() < 0:
        unknown = int(values[found < 0][0])
        raise SampleError("unknown_class", f"{origin}: the data set has no class of value {unknown}")
    return found.astype(np.uint8)


def labels_by_value(names: Mapping[V, str], vocabulary: Vocabulary, own: str) -> dict[V, int]:
    """Labels of the values in a data set's masks, by what the data set calls them; the others' are background.

    Args:
        names: the data set's classes by value.
        vocabulary: the user's classes.
        own: name of the vocabulary of all of the data set's classes, for the message.

    Raises:
        SourceError: if a class of the vocabulary is not among the names.
    """
    try:
        labels = vocabulary.labels_of(list(names.values()))
    except VocabularyError as error:
        raise SourceError(f"{error}; the data set's own classes are `vocabulary` {own}") from error
    return dict(zip(names, labels, strict=True))


@dataclass(frozen=True)
class MaskFolder:
    """Masks in a folder of their own, found by the image's name and then by its key.

    An image `<images>/a/b.jpg` has the mask `<folder>/a/b.png`. Where there is no folder of images, as for tables and
    shards, the name alone counts, `<folder>/b.png`. What has no such file is sought among the masks of other suffixes,
    and a name without folders in the folders below. An image without any has no ground truth.

    Attributes:
        folder: local path or fsspec URL.
        images: the folder that image paths begin with; empty where images have no common folder.
        suffix: of the masks.
        shared: bare names that images of several folders have, so that they identify no mask; None where that is not
            known, so that no bare name does.
    """

    folder: str
    images: str = ""
    suffix: str = ".png"
    shared: frozenset[str] | None = None

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None if there is no such file."""
        names = self._names(entry)
        others = self.suffix == _MASK_SUFFIXES[0]
        for name in names:
            if is_file(path := join(self.folder, f"{name}{self.suffix}")):
                return Location(path)
            if others and "." in name and name in self._others[0]:  # before the .png of the key, which has no dots
                return Location(join(self.folder, self._others[0][name]))
        if not others:
            return None
        below, bare = self._others
        found = [below[name] for name in names if name in below][:1]
        if not found and "/" not in names[0] and self._is_unique(names[0]):
            found = bare.get(names[0], [])
        return Location(join(self.folder, found[0])) if len(found) == 1 else None

    def places(self, entry: Entry) -> list[str]:
        """Where the entry's mask is looked for first."""
        return [join(self.folder, f"{name}{self.suffix}") for name in self._names(entry)]

    def _names(self, entry: Entry) -> list[str]:
        if self.images:
            name = stem(entry.image_name).removeprefix(f"{self.images}/")
            return list(dict.fromkeys((name, entry.key)))
        return list(dict.fromkeys((*filter(self._is_unique, _bare_names(entry)), entry.key)))

    def _is_unique(self, bare: str) -> bool:
        return self.shared is not None and bare not in self.shared

    @cached_property
    def _others(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """All masks by path without suffix, and those in folders by bare name; listed once an image needs it."""
        files = [file for file in find_images(self.folder)[0] if file.lower().endswith(_MASK_SUFFIXES)]
        bare: dict[str, list[str]] = {}
        for file in files:
            folder, _, name = stem(file).rpartition("/")
            if folder:
                bare.setdefault(name, []).append(file)
        return {stem(file): file for file in files}, bare

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without the list of files


@dataclass(frozen=True)
class ListedMasks:
    """Masks that the listing named one by one; one that is named and missing is an error, not an absence.

    Attributes:
        locations: place of the mask by key.
        others: where the masks of the other images are; None for none.
    """

    locations: dict[str, Location]
    others: MaskFolder | None = None

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None if none was named."""
        named = self.locations.get(entry.key)
        return named or (self.others(entry) if self.others is not None else None)

    def places(self, entry: Entry) -> list[str]:
        """Where the entry's mask is looked for."""
        named = self.locations.get(entry.key)
        if named is not None:
            return [named.path]
        return self.others.places(entry) if self.others is not None else []


def open_mask_folder(folder: str, images: str = "", entries: Iterable[Entry] | None = None) -> MaskFiles:
    """The masks of a folder that exists.

    Args:
        folder: local path or fsspec URL.
        images: the folder that image paths begin with; empty where images have no common folder.
        entries: the images; a bare name identifies a mask where only one image has it.

    Raises:
        SourceError: if there is no such folder.
    """
    return MaskFiles(find_mask_folder(folder, images, entries))


def find_mask_folder(folder: str, images: str = "", entries: Iterable[Entry] | None = None) -> MaskFolder:
    """The locator of `open_mask_folder`."""
    if not is_folder(folder):
        raise SourceError(f"no folder '{folder}' of masks; fix `source.masks`, or leave it empty to go without")
    shared = None if entries is None else _shared_names(entries, bool(images))
    return MaskFolder(folder.rstrip("/") or "/", images, shared=shared)


def _shared_names(entries: Iterable[Entry], in_one_folder: bool) -> frozenset[str]:
    """Bare names that several images have; none where keys, which are unique, have no folders and are made of them."""
    entries = list(entries)
    if in_one_folder and not any("/" in entry.key for entry in entries):
        return frozenset()
    names = Counter(name for entry in entries for name in _bare_names(entry))
    return frozenset(name for name, count in names.items() if count > 1)


def _bare_names(entry: Entry) -> list[str]:
    """The image's name without folders and suffix, and the key's, which differ where names hold dots."""
    return list(dict.fromkeys((stem(entry.image_name).rpartition("/")[2], entry.key.rpartition("/")[2])))


def choose_masks(listed: dict[str, Location], folder: str, entries: Sequence[Entry]) -> MaskFiles | None:
    """The masks of the folder that the user set, else those that a listing named, else none.

    Args:
        listed: place of the mask by key.
        folder: of masks named as the images or their keys; may be empty.
        entries: the images, in any folders.

    Raises:
        SourceError: if a folder is set and missing.
    """
    if folder:
        return open_mask_folder(folder, entries=entries)
    return MaskFiles(ListedMasks(listed)) if listed else None
