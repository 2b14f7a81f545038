"""COCO-Object: masks of COCO's 80 things, drawn from the outlines of their instances (Lin et al. 2014)."""

import json
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import numpy as np

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import find_folder, is_folder, join
from pseudolabel.io.image_list import ImageNames, stem
from pseudolabel.io.images import check_size
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_images
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.sources.coco_json import Coco, read_coco
from pseudolabel.sources.entry import TWO_IMAGES, Entry, key_of
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import Mask, MaskReader, labels_by_value, open_mask_folder
from pseudolabel.sources.outlines import rasterise
from pseudolabel.vocabulary import Vocabulary

_NAMED = 3  # paths that a message names
_HINT_IMAGES = "unpack http://images.cocodataset.org/zips/val2017.zip in `source.path`"
_HINT_ANNOTATIONS = (
    "unpack http://images.cocodataset.org/annotations/annotations_trainval2017.zip in `source.path`, and set "
    "`source.split` to val2017 or train2017"
)

_Drawing = tuple[int, int, list[tuple[int, bool, Any]]]
"""Height, width, and label, whether it is a crowd, and outline of each object of an image."""


def list_coco_object(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the images of COCO's JSON, which is `annotations/instances_<split>.json` or what its programs write.

    `<split>/_annotations.coco.json` is Roboflow's; the split may be the path of a JSON file too. Images lie in
    `<split>/`, `images/<split>/`, or for a file of one's own anywhere below `config.path`; a `file_name` may have more
    folders than that or fewer.

    An image's labels are the classes of its annotations, crowds included. Ground truth is drawn from the outlines, see
    `DrawnMasks`, or comes from `config.masks`. An image with objects none of which has an outline has no ground truth.
    Categories that the vocabulary does not have are background.

    Raises:
        SourceError: if annotations, images or pycocotools are missing, or the vocabulary has other classes.
    """
    root = config.path.rstrip("/") or "/"
    coco = read_coco(_paths(root, config.split), _HINT_ANNOTATIONS)
    images = _find_images(root, config.split)
    labels = labels_by_value(coco.categories, vocabulary, "coco")
    places = _places(coco, images)
    entries, drawings = [], {}
    for image in coco.images:
        place = places[image.name]
        classes = sorted({labels[one.category] for one in image.objects} - {BACKGROUND})
        key, origin = key_of(place), f"{coco.path} image {image.number}"
        problem = None
        if image.duplicate:
            message = f"{origin} is '{image.name}' and '{image.duplicate}'; give each image an id of its own"
            problem = SampleError(TWO_IMAGES, message)
        entries.append(Entry(key, join(images, place), tuple(classes), origin, problem))
        outlines = [(labels[one.category], one.crowd, one.outline) for one in image.objects if one.outline is not None]
        if image.size is not None and (outlines or not image.objects) and not image.duplicate:
            drawings[key] = json.dumps((*image.size, outlines)).encode()
    has_outlines = any(one.outline is not None for image in coco.images for one in image.objects)
    has_objects = any(image.objects for image in coco.images)
    return Listing(
        entries,
        _open_masks(config.masks, images, entries, coco.path, drawings if has_outlines or not has_objects else {}),
        LeftOut(coco.dropped),
    )


def _paths(root: str, split: str) -> list[str]:
    """Where the annotations may be."""
    if split.lower().endswith(".json"):
        return [join(root, split), split]
    names = (f"annotations/instances_{split}.json", f"{split}/_annotations.coco.json", f"annotations/{split}.json")
    return [join(root, name) for name in names]


def _find_images(root: str, split: str) -> str:
    if not split.lower().endswith(".json"):
        return find_folder(root, [split, f"images/{split}"], _HINT_IMAGES)
    part = stem(split).rpartition("/")[2].removeprefix("instances_")
    return next((join(root, name) for name in (part, f"images/{part}") if is_folder(join(root, name))), root)


def _places(coco: Coco, images: str) -> dict[str, str]:
    """Path below the folder of images by `file_name`, leading folders left out or added where need be."""
    files = find_images(images)[0]
    names, bare = ImageNames(files), Counter(file.rpartition("/")[2] for file in files)
    below = {name: file for file in files if bare[name := file.rpartition("/")[2]] == 1}
    places = {image.name: _place_of(image.name, names) or below.get(image.name) for image in coco.images}
    found = Counter(place for place in places.values() if place is not None)
    if coco.images and not found:
        tried = ", ".join(f"'{join(images, image.name)}'" for image in coco.images[:_NAMED])
        raise SourceError(
            f"none of the {len(coco.images)} images of '{coco.path}' is in '{images}'; tried {tried}; {_HINT_IMAGES}"
        )
    # A file to which two names resolve belongs to neither.
    return {name: place if place and found[place] == 1 else name.strip("/") for name, place in places.items()}


def _place_of(name: str, files: ImageNames) -> str | None:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((place for tail in tails if (place := files.find(tail)) is not None), None)


def _open_masks(
    folder: str, images: str, entries: list[Entry], path: str, drawings: dict[str, bytes]
) -> MaskReader | None:
    if folder:
        return open_mask_folder(folder, images, entries)
    if not drawings:
        return None
    if find_spec("pycocotools") is None:
        raise SourceError("drawing COCO's outlines needs pycocotools: pip install 'pseudolabel[coco]'")
    return DrawnMasks(path, drawings)


@dataclass(frozen=True)
class DrawnMasks:
    """Masks drawn from the outlines of objects.

    Attributes:
        path: of the annotations, for messages.
        drawings: by key the JSON of height, width, and label, crowd and outline of each object: bytes, which
            are small and quick to send to other processes.
    """

    path: str
    drawings: dict[str, bytes]

    def __call__(self, entry: Entry, max_pixels: int) -> Mask | None:
        """Draw the entry's mask; None for an image none of whose objects has an outline.

        Raises:
            SampleError: `too_large`, or `unreadable` where an outline is invalid.
        """
        origin = f"mask of '{entry.key}' in '{self.path}'"
        drawing = self.drawings.get(entry.key)
        if drawing is None:
            return None
        height, width, objects = cast("_Drawing", json.loads(drawing))
        check_size(width, height, origin, max_pixels)
        try:
            return Mask(draw_objects(objects, height, width), origin)
        except ValueError as error:
            raise SampleError("unreadable", f"{origin}: {error}") from error

    def places(self, entry: Entry) -> list[str]:
        """The file that holds the outlines."""
        return [self.path]


def draw_objects(objects: list[tuple[int, bool, Any]], height: int, width: int) -> np.ndarray:
    """Draw the objects of an image.

    COCO does not say which of two overlapping objects is in front. The one with fewer pixels lies on top (of equal
    ones the later), so that no object hides a smaller one. A crowd, which is one rough outline around many objects, is
    ignored (255) where no single object covers it.

    Args:
        objects: label, whether it is a crowd, and outline of each.
        height: of the image.
        width: of the image.

    Returns:
        uint8 (height, width).

    Raises:
        ValueError: if an outline is invalid.
    """
    shapes = [(crowd, rasterise(outline, height, width), label) for label, crowd, outline in objects]
    labels = np.full((height, width), BACKGROUND, np.uint8, order="F")  # as the shapes are
    for crowd, shape, label in sorted(shapes, key=lambda item: (not item[0], -np.count_nonzero(item[1]))):
        labels[shape] = IGNORE if crowd else label
    return np.ascontiguousarray(labels)
