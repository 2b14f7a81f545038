"""Folders: one per class, as image classification data sets have them."""

from collections import defaultdict

from pseudolabel.config import SourceConfig
from pseudolabel.io.names import printable
from pseudolabel.sources.class_folders import BACKGROUND_FOLDER, ClassFolders, find_class_folders, images_below
from pseudolabel.sources.entry import Entry, NoLabelsError, SourceError, key_of
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import open_mask_folder
from pseudolabel.vocabulary import Vocabulary

_SHOWN = 10


def list_folder(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List every image below a folder; the first folder on its way down names its class.

    Where all images lie in folders of splits, such as train and val, those of `config.split` are listed, and the next
    folder names the class. Images directly in the root, and those in a folder `background`, have no labels. A mask has
    the same relative path as its image, with the suffix `.png`.

    Raises:
        SourceError: if the folder is missing, or two images would have one key.
        NoLabelsError: if labels are to come from the folders' names, and none of them is a class.
    """
    root = config.path.rstrip("/") or "/"
    names, left_out = images_below(config)
    masks = open_mask_folder(config.masks, root) if config.masks else None
    folders = find_class_folders(root, names, config.split)
    reader = LabelReader(vocabulary)
    entries = []
    for name in folders.images:
        shown, path = printable(name), f"{root.rstrip('/')}/{name}"
        labels = [label for label in folders.labels(shown) if label.casefold() != BACKGROUND_FOLDER]
        classes, problem = reader.read(labels, printable(path))
        if shown != name:
            problem = ("undecodable_name", f"{printable(path)}: the name of the file or folder is no UTF-8; rename it")
        entries.append(Entry(key_of(shown), path, classes, printable(path), problem))
    _check_keys(entries)
    if config.labels == "xml" and entries:
        _check_labels(entries, folders, config, vocabulary)
    return Listing(entries, masks, left_out + folders.left_out)


def _check_keys(entries: list[Entry]) -> None:
    paths = defaultdict(list)
    for entry in entries:
        paths[entry.key].append(entry.origin)
    shared = {key: found for key, found in paths.items() if len(found) > 1}
    if shared:
        key, (first, second, *_) = next(iter(shared.items()))
        others = f" (and so do {len(shared) - 1} more keys)" if len(shared) > 1 else ""
        raise SourceError(
            f"key '{key}' belongs to two images: {first} and {second}{others}. Where one is the other's mask, move the "
            "masks into a folder of their own and name it with --source.masks; else rename or remove one of them"
        )


def _check_labels(entries: list[Entry], folders: ClassFolders, config: SourceConfig, vocabulary: Vocabulary) -> None:
    """Make sure that a run has anything to do: that some folder is a class, or images without labels are wanted."""
    elsewhere = "--source.labels FILE takes labels from a file, --source.labels none goes without"
    if folders.names and not any(vocabulary.find(name) for name in folders.names):
        raise NoLabelsError(
            f"no folder in '{printable(config.path)}' is a class of vocabulary '{vocabulary.name}': the folders are "
            f"{_list(folders.names)}; the classes are {_list(vocabulary.names[1:])}. --vocabulary '' takes the folders' "
            f"names for classes; {elsewhere}"
        )
    if not folders.names and config.unlabelled == "skip":
        raise NoLabelsError(
            f"no image in '{printable(config.path)}' lies in a folder that names its class, such as "
            f"'{vocabulary.names[1]}/{entries[0].key.rpartition('/')[2]}.jpg'; {elsewhere}, and "
            "--source.unlabelled background takes all images as background"
        )


def _list(names: tuple[str, ...]) -> str:
    others = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {others} more" if others > 0 else "")
