"""Ground-truth masks: where they lie and how they are read.

Readers and locators are plain data, so that a source can be sent to worker processes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pseudolabel.sources.entry import BadSample, Entry, SourceError
from pseudolabel.sources.files import Location, is_file, is_folder, join, read_bytes
from pseudolabel.sources.images import read_mask
from pseudolabel.vocabulary import Vocabulary, VocabularyError


class Mask(NamedTuple):
    """A mask as it was read.

    Attributes:
        labels: uint8 (H, W); 0 is background, 1..N are classes, 255 is ignored.
        origin: what it is and where it lies, for messages.
    """

    labels: np.ndarray
    origin: str


MaskReader = Callable[[Entry, int], Mask | None]
"""Reads the mask of an entry, of at most so many pixels; None where there is none. Raises `BadSample`."""

MaskLocator = Callable[[Entry], Location | None]

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
            BadSample: `missing` where a file is named and not there, `unknown_class` where it holds a value that has no
                label, or what `decode` finds.
        """
        location = self.locate(entry)
        if location is None:
            return None
        origin = f"mask of '{entry.key}' in '{location.path}'"
        values = self.decode(read_bytes(location), origin, max_pixels)
        return Mask(values if self.labels is None else _translate(values, self.labels, origin), origin)


def _translate(values: np.ndarray, labels: Mapping[int, int], origin: str) -> np.ndarray:
    """Values (H, W) to labels uint8 (H, W), through a table, since data sets have images of two million pixels."""
    table = np.array([labels.get(value, -1) for value in range(int(values.max()) + 1)], np.int16)
    found = table[values]
    if found.min() < 0:
        unknown = int(values[found < 0][0])
        raise BadSample("unknown_class", f"{origin}: the data set has no class of value {unknown}")
    return found.astype(np.uint8)


def labels_by_value(names: Mapping[int, str], vocabulary: Vocabulary, own: str) -> dict[int, int]:
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
        raise SourceError(f"{error}; the data set's own classes are --vocabulary {own}") from error
    return dict(zip(names, labels, strict=True))


@dataclass(frozen=True)
class MaskFolder:
    """Masks in a folder of their own: `<folder>/<name><suffix>`; an image without such a file has no ground truth.

    Attributes:
        folder: local path or fsspec URL.
        images: the folder that image paths begin with; the rest of the path, without suffix, is the mask's name. None
            takes the entry's key for the name.
        suffix: of the masks.
    """

    folder: str
    images: str | None = None
    suffix: str = ".png"

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None if there is no such file."""
        name = entry.key
        if self.images is not None:
            name = re.sub(r"(?<=[^/])\.[^./]+$", "", entry.path.removeprefix(f"{self.images}/"))
        path = join(self.folder, f"{name}{self.suffix}")
        return Location(path) if is_file(path) else None


@dataclass(frozen=True)
class ListedMasks:
    """Masks that the listing named one by one; one that is named and missing is a fault, not an absence.

    Attributes:
        locations: place of the mask by key.
    """

    locations: dict[str, Location]

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None if none was named."""
        return self.locations.get(entry.key)


def open_mask_folder(folder: str, images: str | None = None) -> MaskFiles:
    """The masks of a folder that exists.

    Raises:
        SourceError: if there is no such folder.
    """
    if not is_folder(folder):
        raise SourceError(f"no folder '{folder}' of masks; mend --source.masks, or leave it empty to go without")
    return MaskFiles(MaskFolder(folder.rstrip("/"), images))


def choose_masks(listed: dict[str, Location], folder: str) -> MaskFiles | None:
    """The masks that a listing named, else those of the folder the user set (named by key), else none.

    Raises:
        SourceError: if the folder is needed and missing.
    """
    if listed:
        return MaskFiles(ListedMasks(listed))
    return open_mask_folder(folder) if folder else None
