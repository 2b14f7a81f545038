"""Masks that people made or corrected: PNG files, CVAT's too, COCO's JSON, or Label Studio's with brush strokes."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

import numpy as np

from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import Location, is_file, is_folder, join, read_bytes, read_text
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.io.json_text import decode_json
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_files
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.sources.brush_rle import decode_brush_rle
from pseudolabel.sources.coco_json import CocoImage, parse_coco
from pseudolabel.sources.coco_object import draw_objects
from pseudolabel.vocabulary import Vocabulary

_HINT = "give a folder of PNG masks, COCO's JSON, or Label Studio's JSON"
_LABEL_MAP, _CLASS_MASKS, _NO_CLASS_MASK = "labelmap.txt", "SegmentationClass/", "outside of SegmentationClass"
_LABEL_LINE = re.compile(r"(.+?):(\d{1,3},\d{1,3},\d{1,3}):.*")
_CLASS, _SIZE, _BAD = "unknown_class", "size_mismatch", "unreadable"

Read = Callable[[tuple[int, int]], np.ndarray]
"""Gives uint8 labels (H, W) of this size, or raises SampleError."""


@dataclass
class PeopleMasks:
    """Masks by name: the image's path or key, with any suffix.

    Attributes:
        by_name: reads each of them.
        left_out: what else was found, counted by reason.
    """

    by_name: dict[str, Read] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


def open_people_masks(path: str, vocabulary: Vocabulary) -> PeopleMasks:
    """Open a JSON file, or a folder of PNGs or, where it has none, of JSON files.

    Raises:
        SourceError: if there is nothing of the kind, or a file cannot be used.
    """
    if is_file(path):
        found, left_out = [path], LeftOut()
    elif is_folder(path):
        names, left_out = find_files(path, ".png")
        if is_file(join(path, _LABEL_MAP)):
            return _from_cvat(path, names, left_out, vocabulary)
        if names:
            read = partial(_read_png, vocabulary=vocabulary)
            return PeopleMasks({name: partial(read, join(path, name)) for name in names}, left_out)
        names, left_out = find_files(path, ".json")
        found = [join(path, name) for name in names]
    else:
        raise SourceError(f"no file or folder '{path}'; {_HINT}")
    if not found:
        raise SourceError(f"'{path}' holds no .png and no .json; {_HINT}")
    masks = PeopleMasks({}, left_out)
    for file in found:
        _add_json(masks, file, vocabulary)
    return masks


def _add_json(masks: PeopleMasks, path: str, vocabulary: Vocabulary) -> None:
    try:
        data = decode_json(read_text(path, _HINT))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"'{path}' is not JSON: {error}; {_HINT}") from error
    if isinstance(data, list):
        reads, left_out = _from_label_studio(data, path, vocabulary)
    else:
        coco = parse_coco(data, path, _HINT)
        reads = {image.name: partial(_read_coco, image, coco.categories, path, vocabulary) for image in coco.images}
        left_out = LeftOut(coco.dropped)
    if twice := next((name for name in reads if name in masks.by_name), None):
        raise SourceError(f"'{twice}' is in '{path}' and in another file; remove one of them")
    masks.by_name |= reads
    masks.left_out += left_out


def _read_png(path: str, size: tuple[int, int], vocabulary: Vocabulary) -> np.ndarray:
    labels = read_mask(read_bytes(Location(path)), f"'{path}'")
    _check_size(labels.shape, size, f"'{path}'")
    unknown = sorted({*np.unique(labels).tolist()} - {*range(len(vocabulary) + 1), IGNORE})
    if unknown:
        raise SampleError(_CLASS, f"'{path}': label value {unknown[0]}; the classes end at {len(vocabulary)}")
    return labels


def _from_cvat(path: str, names: Sequence[str], left_out: LeftOut, vocabulary: Vocabulary) -> PeopleMasks:
    """CVAT's "Segmentation mask 1.1": masks in the colours that `labelmap.txt` lists."""
    colours: dict[int, str] = {}
    text = read_text(join(path, _LABEL_MAP), _HINT)
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            found = _LABEL_LINE.fullmatch(line)
            if found is None:
                raise SourceError(f"'{join(path, _LABEL_MAP)}' has the line {line!r:.80}, not 'label:red,green,blue::'")
            red, green, blue = (int(part) for part in found[2].split(","))
            colours[red << 16 | green << 8 | blue] = found[1]
    classes = [name for name in names if name.startswith(_CLASS_MASKS)]
    left_out += LeftOut({_NO_CLASS_MASK: len(names) - len(classes)} if len(names) > len(classes) else {})
    read = partial(_read_coloured, colours=colours, vocabulary=vocabulary)
    return PeopleMasks({name.removeprefix(_CLASS_MASKS): partial(read, join(path, name)) for name in classes}, left_out)


def _read_coloured(path: str, size: tuple[int, int], colours: dict[int, str], vocabulary: Vocabulary) -> np.ndarray:
    origin = f"'{path}'"
    image = np.asarray(decode_image(read_bytes(Location(path)), origin, max(1, size[0] * size[1]))[0]).astype(np.int32)
    _check_size(image.shape[:2], size, origin)
    packed = image[..., 0] << 16 | image[..., 1] << 8 | image[..., 2]
    labels = np.full(size, BACKGROUND, np.uint8)
    for colour in np.unique(packed).tolist():
        if colour not in colours:
            raise SampleError(_CLASS, f"{origin}: the colour #{colour:06x} is not in {_LABEL_MAP}")
        labels[packed == colour] = _label(colours[colour], origin, vocabulary)
    return labels


def _read_coco(
    image: CocoImage, categories: dict[str, str], path: str, vocabulary: Vocabulary, size: tuple[int, int]
) -> np.ndarray:
    origin = f"'{path}' image {image.number}"
    if image.size is None or image.duplicate:
        raise SampleError(_BAD, f"{origin}: {'its id has another image' if image.duplicate else 'no height and width'}")
    _check_size(image.size, size, origin)
    if not image.objects:
        raise SampleError("empty", f"{origin}: no object; give a PNG for an image of background alone")
    if any(one.outline is None for one in image.objects):
        raise SampleError(_BAD, f"{origin}: an object without a valid outline")
    # CVAT writes iscrowd 1 for every brush stroke; what a person drew is of its class.
    objects = [(_label(categories[one.category], origin, vocabulary), False, one.outline) for one in image.objects]
    try:
        return draw_objects(objects, *size)
    except ValueError as error:
        raise SampleError(_BAD, f"{origin}: {error}") from error


def _from_label_studio(tasks: list[Any], path: str, vocabulary: Vocabulary) -> tuple[dict[str, Read], LeftOut]:
    """Tasks with one annotation; predictions are not people's."""
    reads: dict[str, Read] = {}
    reasons: Counter[str] = Counter()
    for number, task in enumerate(tasks, 1):
        origin = f"'{path}' task {number}"
        try:
            annotations = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
            name = _task_name(task["data"])
        except (AttributeError, KeyError, TypeError) as error:
            raise SourceError(f"{origin} is no task of Label Studio ({error!r}); {_HINT}") from error
        if not annotations:
            reasons["image(s) without an annotation"] += 1
        elif name in reads:
            raise SourceError(f"{origin}: '{name}' has another task; remove one of them")
        else:
            reads[name] = partial(_read_strokes, annotations, origin, vocabulary)
    return reads, LeftOut(reasons)


def _task_name(data: dict[str, Any]) -> str:
    """The key that our export writes, or the image's path."""
    if isinstance(data.get("key"), str):
        return f"{data['key']}.png"
    address: str = data["image"] if "image" in data else next(iter(data.values()))
    return unquote(address.rpartition("?d=")[2]).partition("?")[0].lstrip("/")


def _read_strokes(
    annotations: Sequence[dict[str, Any]], origin: str, vocabulary: Vocabulary, size: tuple[int, int]
) -> np.ndarray:
    """Later strokes lie on top, as they are shown."""
    if len(annotations) > 1:
        raise SampleError("several_annotations", f"{origin}: {len(annotations)} annotations; leave one of them")
    labels = np.full(size, BACKGROUND, np.uint8)
    try:
        regions = [region for region in annotations[0]["result"] if region.get("type") != "choices"]
        for region in regions:
            value = region["value"]
            if region["type"] != "brushlabels" or value.get("format") != "rle":
                raise SampleError(_BAD, f"{origin}: a region of the type {region['type']}; only brush strokes are read")
            if region.get("image_rotation"):
                raise SampleError(_BAD, f"{origin}: the image was rotated; annotate it as it is")
            _check_size((region["original_height"], region["original_width"]), size, origin)
            [name] = value["brushlabels"]
            labels[decode_brush_rle(value["rle"], *size)] = _label(name, origin, vocabulary)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SampleError(_BAD, f"{origin}: {error!r}") from error
    return labels


def _label(name: str, origin: str, vocabulary: Vocabulary) -> int:
    """The label of a class, or of `background` and `ignore`, which our exports may name as well."""
    index = vocabulary.find(name)
    if index is None and name.casefold() in (vocabulary.names[BACKGROUND], "ignore"):
        return IGNORE if name.casefold() == "ignore" else BACKGROUND
    if index is None:
        raise SampleError(_CLASS, f"{origin}: '{name}' is none of the run's classes ({vocabulary.listed})")
    return index


def _check_size(found: tuple[int, ...], size: tuple[int, int], origin: str) -> None:
    if tuple(found) != size:
        raise SampleError(_SIZE, f"{origin}: {tuple(found)} where the image is {size} (height, width)")
