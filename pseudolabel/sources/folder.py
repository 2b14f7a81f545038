"""Folders: one per class, as image classification data sets have them."""

from pseudolabel.config import SourceConfig
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import Entry, SourceError, key_of
from pseudolabel.sources.files import is_folder, join
from pseudolabel.sources.images import IMAGE_SUFFIXES
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import open_mask_folder
from pseudolabel.vocabulary import Vocabulary


def list_folder(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List every image below a folder; the first folder on its way down names its class.

    Images directly in the root have no labels. Hidden files and folders, and `config.masks` where it lies inside, are
    passed over. A mask has the same relative path as its image, with the suffix `.png`.

    Raises:
        SourceError: if the folder is missing.
    """
    root = config.path.rstrip("/") or "/"
    if not is_folder(root):
        raise SourceError(f"no folder '{root}'; --source.path needs a folder that holds one folder per class")
    masks = open_mask_folder(config.masks, root) if config.masks else None
    reader = LabelReader(vocabulary)
    entries = []
    for name in image_names(root, config.masks):
        path = join(root, name)
        first, slash, _ = name.partition("/")
        classes, problem = reader.read([first] if slash else [], path)
        entries.append(Entry(key_of(name), path, classes, path, problem))
    return Listing(entries, masks)


def image_names(root: str, masks: str = "") -> list[str]:
    """Paths of all images relative to the root, but for those in a folder of masks."""
    fs, base = open_filesystem(root)
    outside = open_filesystem(masks)[1].rstrip("/") + "/" if masks else None
    names = []
    for path in fs.find(base):
        name = path[len(base) :].lstrip("/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        if name.lower().endswith(IMAGE_SUFFIXES) and not hidden and not (outside and path.startswith(outside)):
            names.append(name)
    return names
