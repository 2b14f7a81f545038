"""The folders that name their images' classes, and the vocabulary that they make."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError
from pseudolabel.io.files import is_folder
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.names import printable
from pseudolabel.io.ownership import without_own_files
from pseudolabel.io.walk import find_images
from pseudolabel.vocabulary import Vocabulary, load_vocabulary, vocabulary_of

BACKGROUND_FOLDER = "background"  # its images show none of the classes
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_SHOWN = 10
_SHIPPED = ("voc", "coco", "context", "shapes")  # those with a background; the first with all folders is chosen


@dataclass(frozen=True)
class ClassFolders:
    """Which images of a folder are listed, and which folder of their paths names the class.

    Attributes:
        images: paths below the root.
        level: how many folders come before the one that names the class.
        names: the folders that name classes, sorted, without `background`.
        left_out: images of other splits.
    """

    images: list[str]
    level: int
    names: tuple[str, ...]
    left_out: LeftOut

    def labels(self, image: str) -> list[str]:
        """The folder that names the class of an image, given its path below the root; none for one without."""
        return image.split("/")[self.level : -1][:1]


def images_below(config: SourceConfig) -> tuple[list[str], LeftOut]:
    """`find_images` of a source of kind `folder`, whose masks and results may be inside.

    Raises:
        SourceError: if there is no such folder.
        PathError: if it cannot be listed.
    """
    if not is_folder(config.path):
        raise SourceError(
            f"no folder '{printable(config.path)}'; `source.path` needs a folder that holds one folder per class"
        )
    return without_own_files(config.path, *find_images(config.path, config.masks))


def find_class_folders(root: str, images: list[str], split: str) -> ClassFolders:
    """Find which folder of images' paths names the class, and which images belong to a split.

    Args:
        root: for messages.
        images: paths below the root.
        split: the folder to take where all images lie in folders of splits, and those in folders of classes.

    Raises:
        SourceError: if there are such folders, and none of this name.
    """
    parts = [image.split("/") for image in images]
    level = int(bool(parts) and all(len(folders) > 2 and folders[0] in _SPLITS for folders in parts))
    others: Counter[str] = Counter()
    if level:
        others = Counter(first for first, *_ in parts if first != split)
        if others.total() == len(images):
            raise SourceError(
                f"'{printable(root)}' holds the splits {', '.join(sorted(others))}, and none is called '{split}'; "
                "choose one with `source.split`"
            )
        images = [image for image, (first, *_) in zip(images, parts, strict=True) if first == split]
    left_out = LeftOut({f"in {first}/ (`source.split` {first})": count for first, count in others.items()})
    listed = ClassFolders(images, level, (), left_out)
    names = {printable(name) for image in images for name in listed.labels(image)}
    return replace(listed, names=tuple(sorted(name for name in names if name.casefold() != BACKGROUND_FOLDER)))


def vocabulary_of_folders(config: SourceConfig) -> tuple[Vocabulary, str]:
    """The vocabulary of a folder of class folders: a shipped one that has all of them, else their names.

    Args:
        config: of a source of kind `folder`.

    Returns:
        The vocabulary, and how it was chosen, to be printed.

    Raises:
        SourceError: if the folder is missing.
        VocabularyError: if there are more folders than classes fit into a mask, or two have one name.
    """
    names = find_class_folders(config.path, images_below(config)[0], config.split).names
    shipped = map(load_vocabulary, _SHIPPED)
    fitting = next((found for found in shipped if all(found.find(name) is not None for name in names)), None)
    if fitting is not None:
        known = f"it knows all {len(names)} class folders" if names else "there are no class folders"
        return fitting, f"vocabulary: {fitting.name}, since {known}; `vocabulary` chooses another"
    typed = vocabulary_of(names)
    classes = tuple(replace(entry, prompt=entry.prompt.replace("_", " ")) for entry in typed.classes)
    chosen = replace(typed, name="folders", classes=classes)
    return chosen, f"vocabulary: the class folders' names, {shorten(names)}; `vocabulary` chooses another"


def shorten(names: Sequence[str]) -> str:
    """The first names and how many more there are, for a message."""
    others = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {others} more" if others > 0 else "")
