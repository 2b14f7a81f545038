"""COCO-Object: masks of COCO's 80 things, drawn from the outlines of their instances (Lin et al. 2014)."""

import json
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from pseudolabel.config import SourceConfig
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.sources.entry import BadSample, Entry, SourceError, key_of
from pseudolabel.sources.files import find_folder, join, read_text
from pseudolabel.sources.images import check_size
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import Mask, MaskReader, labels_by_value, open_mask_folder
from pseudolabel.sources.outlines import rasterise
from pseudolabel.vocabulary import Vocabulary

_MEND_IMAGES = "unpack http://images.cocodataset.org/zips/val2017.zip in --source.path"
_MEND_ANNOTATIONS = (
    "unpack http://images.cocodataset.org/annotations/annotations_trainval2017.zip in --source.path, and set "
    "--source.split to val2017 or train2017"
)

_Objects = list[tuple[int, bool, Any]]
"""Label, whether it is a crowd, and outline of each object of an image."""


def list_coco_object(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the images of `annotations/instances_<split>.json`, which lie in `<split>/` or `images/<split>/`.

    An image's labels are the classes of its annotations, crowds included. Ground truth is drawn from the annotations,
    see `DrawnMasks`, or comes from `config.masks`. Categories that the vocabulary does not have are background.

    Raises:
        SourceError: if annotations, images or pycocotools are missing, or the vocabulary has other classes.
    """
    root = config.path.rstrip("/") or "/"
    path = join(root, f"annotations/instances_{config.split}.json")
    instances = _load(path)
    images = find_folder(root, [config.split, f"images/{config.split}"], _MEND_IMAGES)
    labels = labels_by_value({item["id"]: item["name"] for item in instances["categories"]}, vocabulary, "coco")
    objects: dict[int, _Objects] = defaultdict(list)
    for item in instances["annotations"]:
        objects[item["image_id"]].append((labels[item["category_id"]], bool(item["iscrowd"]), item["segmentation"]))
    entries, drawings = [], {}
    for item in instances["images"]:
        found, name = objects[item["id"]], item["file_name"]
        classes = sorted({label for label, _, _ in found} - {BACKGROUND})
        entry = Entry(key_of(name), join(images, name), tuple(classes), f"{path} image {item['id']}")
        entries.append(entry)
        drawings[entry.key] = json.dumps((item["height"], item["width"], found)).encode()
    return Listing(entries, _open_masks(config.masks, images, path, drawings))


def _load(path: str) -> dict[str, list[dict[str, Any]]]:
    """The instances, checked for the fields that are read here."""
    fields = {
        "categories": ("id", "name"),
        "annotations": ("image_id", "category_id", "iscrowd", "segmentation"),
        "images": ("id", "file_name", "height", "width"),
    }
    try:
        instances = json.loads(read_text(path, _MEND_ANNOTATIONS))
    except json.JSONDecodeError as error:
        raise SourceError(f"'{path}' is not JSON: {error}; {_MEND_ANNOTATIONS}") from error
    for part, names in fields.items():
        items = instances.get(part) if isinstance(instances, dict) else None
        if not isinstance(items, list) or any(not isinstance(item, dict) or {*names} - item.keys() for item in items):
            raise SourceError(f"'{path}' has no list '{part}' with {', '.join(names)}; {_MEND_ANNOTATIONS}")
    known = {item["id"] for item in instances["categories"]}
    strange = {item["category_id"] for item in instances["annotations"]} - known
    if strange:
        raise SourceError(f"'{path}' has objects of category {min(strange)}, which is not among its categories")
    return instances


def _open_masks(folder: str, images: str, path: str, drawings: dict[str, bytes]) -> MaskReader:
    if folder:
        return open_mask_folder(folder, images)
    if find_spec("pycocotools") is None:
        raise SourceError("drawing COCO's outlines needs pycocotools: pip install 'pseudolabel[coco]'")
    return DrawnMasks(path, drawings)


@dataclass(frozen=True)
class DrawnMasks:
    """Masks drawn from the outlines of objects.

    COCO does not tell which of two overlapping objects is in front. The one with fewer pixels lies on top (of equal
    ones the later), so that no object hides a smaller one. A crowd, which is one rough outline around many objects, is
    ignored (255) where no single object covers it.

    Attributes:
        path: of the annotations, for messages.
        drawings: by key the JSON of height, width, and label, crowd and outline of each object: bytes, which
            are small and quick to send to other processes.
    """

    path: str
    drawings: dict[str, bytes]

    def __call__(self, entry: Entry, max_pixels: int) -> Mask:
        """Draw the entry's mask.

        Raises:
            BadSample: `too_large`, or `unreadable` where an outline makes no sense.
        """
        origin = f"mask of '{entry.key}' in '{self.path}'"
        height, width, objects = json.loads(self.drawings[entry.key])
        check_size(width, height, origin, max_pixels)
        try:
            shapes = [(crowd, rasterise(outline, height, width), label) for label, crowd, outline in objects]
        except ValueError as error:
            raise BadSample("unreadable", f"{origin}: {error}") from error
        labels = np.full((height, width), BACKGROUND, np.uint8, order="F")  # as the shapes are
        for crowd, shape, label in sorted(shapes, key=lambda item: (not item[0], -np.count_nonzero(item[1]))):
            labels[shape] = IGNORE if crowd else label
        return Mask(np.ascontiguousarray(labels), origin)

    def places(self, entry: Entry) -> list[str]:
        """The file that holds the outlines."""
        return [self.path]
