"""Where ground-truth masks lie. Locators are plain data, so that a source can be sent to worker processes."""

from collections.abc import Callable
from dataclasses import dataclass

from pseudolabel.sources.entry import Entry, SourceError
from pseudolabel.sources.files import Location, is_file, is_folder, join

MaskLocator = Callable[[Entry], Location | None]


@dataclass(frozen=True)
class MaskFolder:
    """Masks in a folder of their own: `<folder>/<name>.png`; an image without such a file has no ground truth.

    Attributes:
        folder: local path or fsspec URL.
        images: the folder that image paths begin with; the rest of the path, without suffix, is the mask's name. None
            takes the entry's key for the name.
    """

    folder: str
    images: str | None = None

    def __call__(self, entry: Entry) -> Location | None:
        """Place of the entry's mask, None if there is no such file."""
        name = entry.key
        if self.images is not None:
            name = entry.path.removeprefix(f"{self.images}/").rpartition(".")[0]
        path = join(self.folder, f"{name}.png")
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


def open_mask_folder(folder: str, images: str | None = None) -> MaskFolder:
    """A `MaskFolder` that exists.

    Raises:
        SourceError: if there is no such folder.
    """
    if not is_folder(folder):
        raise SourceError(f"no folder '{folder}' of masks; mend --source.masks, or leave it empty to go without")
    return MaskFolder(folder.rstrip("/"), images)


def choose_masks(listed: dict[str, Location], folder: str) -> MaskLocator | None:
    """The masks that a listing named, else those of the folder the user set (named by key), else none.

    Raises:
        SourceError: if the folder is needed and missing.
    """
    if listed:
        return ListedMasks(listed)
    return open_mask_folder(folder) if folder else None
