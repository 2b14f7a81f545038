"""COCO's JSON, also as annotation programs and scripts write it: damaged parts are dropped and counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pseudolabel.errors import SourceError
from pseudolabel.io.files import is_file, read_text
from pseudolabel.io.json_text import decode_json
from pseudolabel.sources.outlines import check_outline

DUPLICATE = "image(s) listed twice"
NAMELESS = "image(s) without id or file_name"
UNKNOWN = "object(s) of a category not listed"


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        category: the category's id.
        crowd: whether it is one outline around many objects.
        outline: polygons or run lengths that fit the image; None where there are none.
    """

    category: str
    crowd: bool
    outline: Any


@dataclass(frozen=True)
class CocoImage:
    """One image.

    Attributes:
        number: its id, for messages.
        name: its `file_name`.
        size: (height, width); None where the file has none.
        objects: in the order of the file.
        duplicate: the `file_name` of another image of the same id, so that objects cannot be told apart; else empty.
    """

    number: str
    name: str
    size: tuple[int, int] | None
    objects: list[CocoObject]
    duplicate: str = ""


@dataclass(frozen=True)
class Coco:
    """A file's images and categories, and how many of its entries were dropped by reason."""

    path: str
    images: list[CocoImage]
    categories: dict[str, str]
    dropped: Counter[str]


def read_coco(paths: Sequence[str], hint: str) -> Coco:
    """Read the first of some files that is there.

    Raises:
        SourceError: if there is no such file, it is no JSON, or `parse_coco` cannot use it.
    """
    path = next((path for path in paths if is_file(path)), paths[0])
    try:
        data = decode_json(read_text(path, hint))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"'{path}' is not JSON: {error}; {hint}") from error
    return parse_coco(data, path, hint)


def parse_coco(data: Any, path: str, hint: str, outlines: bool = True) -> Coco:
    """Parse COCO's JSON.

    `iscrowd` and `segmentation` may be left out. An object without an image or a category is dropped, and so is an
    invalid outline: its object counts for the labels and is not drawn. The objects of images of one
    `file_name` are united.

    Args:
        data: the file's content.
        path: of the file, for messages.
        hint: the end of every message, what the user should do.
        outlines: False where only labels matter, so that outlines are neither checked nor kept.

    Raises:
        SourceError: if it is no COCO JSON, two categories have one id, or all of its objects are of unknown categories.
    """
    _check_parts(data, path, hint)
    dropped: Counter[str] = Counter()
    categories = _categories(data["categories"], path)
    by_number: dict[str, CocoImage] = {}
    by_name: dict[str, CocoImage] = {}
    for item in data["images"]:
        image = _image(item)
        if image is None:
            dropped[NAMELESS] += 1
        elif image.name in by_name:
            dropped[DUPLICATE] += 1
            by_number.setdefault(image.number, by_name[image.name])
        elif image.number in by_number:
            other = by_number[image.number]
            by_name[image.name] = CocoImage(image.number, image.name, image.size, [], other.name)
            by_name[other.name] = CocoImage(other.number, other.name, other.size, other.objects, image.name)
            by_number[image.number] = by_name[other.name]
        else:
            by_name[image.name] = by_number[image.number] = image
    for item in data["annotations"]:
        reason = _add(item, by_number, categories, outlines)
        if reason:
            dropped[reason] += 1
    unknown = dropped[UNKNOWN]
    if unknown and unknown == len(data["annotations"]):
        first = data["annotations"][0]["category_id"]
        raise SourceError(f"'{path}' has objects of category {first}, which is not among its categories; {hint}")
    return Coco(path, list(by_name.values()), categories, +dropped)


def _check_parts(data: Any, path: str, hint: str) -> None:
    for part in ("categories", "annotations", "images"):
        if not isinstance(data, dict) or not isinstance(data.get(part), list):
            raise SourceError(f"'{path}' has no list '{part}', so that it is no COCO JSON of objects; {hint}")
    for item in data["categories"]:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not _id(item.get("id")):
            raise SourceError(f"'{path}' has the category {item!r:.80}, which needs an id and a name; {hint}")


def _categories(items: list[dict[str, Any]], path: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for item in items:
        number, name = _id(item["id"]), item["name"]
        if names.setdefault(number, name) != name:
            raise SourceError(
                f"'{path}' gives the categories '{names[number]}' and '{name}' the same id {number}, so that their "
                "objects cannot be told apart; give each category an id of its own"
            )
    return names


def _image(item: Any) -> CocoImage | None:
    number = _id(item.get("id")) if isinstance(item, dict) else ""
    if not number:
        return None
    name = item.get("file_name")
    if not isinstance(name, str) or not name.strip("/. "):
        return None
    height, width = _positive(item.get("height")), _positive(item.get("width"))
    return CocoImage(number, name.replace("\\", "/"), (height, width) if height and width else None, [])


def _add(item: Any, images: dict[str, CocoImage], categories: dict[str, str], outlines: bool) -> str:
    """Add an annotation to its image; gives the reason why it, or its outline, is dropped, else nothing."""
    numbers = [_id(item.get(field)) for field in ("image_id", "category_id")] if isinstance(item, dict) else [""]
    if not all(numbers):
        return "object(s) without image or category"
    image, category = images.get(numbers[0]), numbers[1]
    if category not in categories:
        return UNKNOWN
    if image is None:
        return "object(s) of an image not listed"
    outline, reason = item.get("segmentation"), ""
    if not outlines:
        outline = None
    elif image.size is None:
        outline, reason = None, "object(s) in an image without height and width" if outline else ""
    elif not outline:
        outline, reason = None, "object(s) without an outline"
    else:
        try:
            check_outline(outline, *image.size)
        except ValueError:
            outline, reason = None, "object(s) with a damaged outline"
    image.objects.append(CocoObject(category, item.get("iscrowd") in (1, True, "1"), outline))
    return reason


def _id(value: object) -> str:
    """An id, which some write as text; empty for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""


def _positive(value: object) -> int:
    """A positive integer, which may be written as a float; else 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return 0
    return int(value) if value > 0 and float(value).is_integer() else 0
