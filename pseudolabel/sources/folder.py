"""Folders: one per class, as image classification data sets have them."""

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError
from pseudolabel.io.names import printable
from pseudolabel.sources.class_folders import BACKGROUND_FOLDER, ClassFolders, find_class_folders, images_below, shorten
from pseudolabel.sources.entry import UNDECODABLE_NAME, Entry, key_of
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import open_mask_folder
from pseudolabel.vocabulary import Vocabulary


def list_folder(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List every image below a folder; the first folder on its way down names its class.

    Where all images lie in folders of splits, such as train and val, those of `config.split` are listed, and the next
    folder names the class. Images directly in the root, and those in a folder `background`, have no labels. A mask has
    the same relative path as its image, with the suffix `.png`.

    Raises:
        SourceError: if the folder is missing.
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
            message = f"{printable(path)}: the name of the file or folder is no UTF-8; rename it"
            problem = SampleError(UNDECODABLE_NAME, message)
        entries.append(Entry(key_of(shown), path, classes, printable(path), problem))
    is_known = any(reader.read([name], name)[0] for name in folders.names)
    no_labels = "" if is_known else _no_labels(folders, config, vocabulary)
    return Listing(entries, masks, left_out + folders.left_out, no_labels)


def _no_labels(folders: ClassFolders, config: SourceConfig, vocabulary: Vocabulary) -> str:
    """Why no image can be worked on, where no folder is a class; empty where images without labels are wanted."""
    elsewhere = "`source.labels` FILE takes labels from a file, `source.labels` none goes without"
    if folders.names:
        return (
            f"no folder in '{printable(config.path)}' is a class of vocabulary '{vocabulary.name}': the folders are "
            f"{shorten(folders.names)}; the classes are {shorten(vocabulary.names[1:])}. `vocabulary` '' takes the "
            f"folders' names for classes; {elsewhere}"
        )
    if config.unlabelled == "skip":
        return (
            f"no image in '{printable(config.path)}' is in a folder that names its class, such as "
            f"'{vocabulary.names[1]}/image.jpg'; {elsewhere}, and "
            "`source.unlabelled` background takes all images as background"
        )
    return ""
