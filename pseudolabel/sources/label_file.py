"""Label files: the image-level labels of a whole data set beside the images."""

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pseudolabel.errors import NoLabelsError, SampleError, SourceError
from pseudolabel.io.files import Location, is_folder, read_bytes, read_text
from pseudolabel.io.json_text import decode_json
from pseudolabel.io.jsonl import read_records
from pseudolabel.io.left_out import LeftOut
from pseudolabel.sources.coco_json import parse_coco
from pseudolabel.sources.entry import IMAGE_PROBLEMS, Entry
from pseudolabel.sources.image_ids import describe_ids, match_ids
from pseudolabel.sources.labels import UNCLEAR_LABELS, UNKNOWN_CLASS, LabelReader, Labels
from pseudolabel.vocabulary import Vocabulary

LABEL_FIELDS = (
    "names",
    "labels",
    "classes",
    "label",
    "class",
)  # names first: in shards of ours `classes` need not be 0-based
_ID_FIELDS = ("key", "image", "file_name")
_MOST_LISTS = 20  # in one file; more objects than these are images
_HINT = (
    "set `source.labels` to xml, masks, none, or the path of a JSON, JSONL, txt or npz file or of a folder of JSONL "
    "files"
)
_HINT_COCO = "fix the file, or write an object of image to labels"
_COMMAS = "several labels on a line are separated by commas: ID cat,dog"
_UNPICKLE = (
    "pickled arrays are not opened, since they can run code; convert a file you trust with "
    'python -c "import numpy as np; '
    "np.savez('cls_labels.npz', **np.load('cls_labels.npy', allow_pickle=True).item())\""
)


class LabelFile(NamedTuple):
    """What a label file holds.

    Attributes:
        labels: by image id, all the labels that the file gives it, each as `LabelReader.read` takes them.
        left_out: entries of the file that say nothing of an image, by reason.
    """

    labels: dict[str, list[object]]
    left_out: LeftOut = LeftOut()


def label_by_file(entries: list[Entry], path: str, vocabulary: Vocabulary) -> tuple[list[Entry], LeftOut]:
    """The entries with a label file's labels instead of their own; images that it leaves out are bad samples.

    Returns:
        The entries, and what in the file is of no use.

    Raises:
        SourceError: if the file cannot be used.
        NoLabelsError: if it labels none of the images.
    """
    labels, left_out = load_label_file(path, len(vocabulary))
    ids = {key: name for name, key in match_ids(labels, entries, path).items()}
    if entries and not ids:
        raise NoLabelsError(
            f"'{path}' labels none of the images: it has {describe_ids(labels)}, and the images are "
            f"{describe_ids(entry.key for entry in entries)}; it may belong to another data set"
        )
    reader = LabelReader(vocabulary)
    is_text = path.lower().endswith(".txt")
    others = [entry.key for entry in entries if entry.key not in ids]
    cut = {key.partition(" ")[0] for key in others if " " in key and is_text}

    def read(entry: Entry) -> Labels:
        name = ids.get(entry.key)
        if name is None:
            message = f"labels: '{path}' has none for '{entry.key}'; write [] for an image without objects"
            return (), SampleError("missing", message)
        if entry.key in cut:
            message = f"labels: lines of '{path}' may be of '{name}' or of an image whose name goes on after a blank"
            return (), SampleError(UNCLEAR_LABELS, f"{message}; write a tab behind each name")
        classes, problem = reader.read_all(labels[name], f"{path} '{name}'")
        if problem is not None and problem.status == UNKNOWN_CLASS and is_text:
            problem = SampleError(UNKNOWN_CLASS, f"{problem}; {_COMMAS}")
        return classes, problem

    def label(entry: Entry) -> Entry:
        classes, problem = read(entry)
        return replace(entry, classes=classes, problem=_problem_of_image(entry) or problem)

    return [label(entry) for entry in entries], left_out


def without_labels(entry: Entry) -> Entry:
    """The entry without its labels; a problem of the image itself remains."""
    problem = _problem_of_image(entry)
    return entry if problem is entry.problem and not entry.classes else replace(entry, classes=(), problem=problem)


def _problem_of_image(entry: Entry) -> SampleError | None:
    return entry.problem if entry.problem is not None and entry.problem.status in IMAGE_PROBLEMS else None


def load_label_file(path: str, classes: int) -> LabelFile:
    """Load the labels of every image.

    A JSON file is an object from image id to a list of class names or of 0-based class indices without background, to a
    one-hot vector, or to an object with such a list under `names`, `labels`, `classes` or `label`. One with several
    objects of image to labels by name, as DiffSegmenter's authors have published, is followed by the names of those
    whose union is wanted: `lists.json#image_similarity+text_similarity`. COCO's JSON (and Roboflow's) gives each image
    the categories of its annotations. A JSON list, JSONL files, or a folder of them hold objects with `key` (or `image`
    or `file_name`) and labels, as `pseudolabel filter` writes them. A text file holds lines of an id, a blank, a comma
    or a tab, and the labels with commas between; indices may have blanks between. An npz file holds one-hot vectors of
    all classes without background: either one array per image id, or the arrays `ids` (n,) and `labels` (n, classes).

    Args:
        path: local path or fsspec URL.
        classes: number of classes without background, the length of a one-hot vector.

    Raises:
        SourceError: if the file is missing, pickled, of another layout, or gives two images one id.
    """
    chosen = re.fullmatch(r"(.*\.json)#(.+)", path, re.IGNORECASE)
    suffix = path.rpartition(".")[2].lower()
    if is_folder(path) or suffix == "jsonl":
        return LabelFile(_by_record(read_records(path, "label line", _HINT), "label line"))
    if chosen:
        return LabelFile(_load_lists(chosen[1], chosen[2].split("+")))
    if suffix == "json":
        return _load_json_labels(path)
    if suffix == "txt":
        return LabelFile(_load_lines(path))
    if suffix in ("npz", "npy"):
        return LabelFile(_load_npz(path, classes))
    raise SourceError(f"labels '{path}' cannot be read; {_HINT}")


def _by_record(records: Iterable[tuple[str, dict[str, Any]]], what: str) -> dict[str, list[object]]:
    labels: dict[str, list[object]] = {}
    for origin, record in records:
        name = next((record[field] for field in _ID_FIELDS if field in record), None)
        if not isinstance(name, str):
            found = f"the number {name}; put it in quotes" if isinstance(name, (int, float)) else "none"
            raise SourceError(f"{origin}: not a {what}: {' or '.join(_ID_FIELDS)} has to name the image, found {found}")
        field = find_label_field(record)
        if field is None:
            raise SourceError(f"{origin}: not a {what}: no {' or '.join(LABEL_FIELDS)}")
        labels.setdefault(name, []).append(record[field])
    return labels


def find_label_field(record: Mapping[str, object]) -> str | None:
    """The field of an image's JSON object that holds its labels; None if it has none."""
    return next((field for field in LABEL_FIELDS if field in record), None)


def _load_json_labels(path: str) -> LabelFile:
    labels = _load_json(path)
    if isinstance(labels, list):
        records = [(f"{path}, item {number}", record) for number, record in enumerate(labels, 1)]
        if all(isinstance(record, dict) for record in labels):
            return LabelFile(_by_record(records, "label"))
        raise SourceError(f"'{path}' holds a JSON list, not of objects with key and labels")
    if {"images", "annotations"} <= labels.keys():
        return _of_coco(path, labels)
    strange = {name: value for name, value in labels.items() if isinstance(value, dict) and not find_label_field(value)}
    if strange:
        raise SourceError(f"'{path}' holds {_describe_objects(path, strange)}")
    return LabelFile({name: [_nested(value)] for name, value in labels.items()})


def _nested(value: object) -> object:
    """An image's labels, or those in the field of an object."""
    field = find_label_field(value) if isinstance(value, dict) else None
    return value[field] if isinstance(value, dict) and field is not None else value


def _describe_objects(path: str, objects: dict[str, dict[str, object]]) -> str:
    """What to do about objects that are no image's labels: choose between lists of images, or write other fields."""
    are_lists = all(isinstance(labels, list) for value in objects.values() for labels in value.values())
    if are_lists and len(objects) <= _MOST_LISTS:
        return f"several lists of labels; choose: {path}#{'+'.join(objects)}, or some of them"
    name, value = next(iter(objects.items()))
    return (
        f"no labels for '{name}' under {' or '.join(LABEL_FIELDS)}, but {', '.join(value) or 'nothing'}; write a list "
        "of labels for each image"
    )


def _of_coco(path: str, content: dict[str, Any]) -> LabelFile:
    """The names of the categories of each image's annotations, crowds too."""
    coco = parse_coco(content, path, _HINT_COCO, outlines=False)
    for image in coco.images:
        if image.duplicate:
            raise SourceError(
                f"'{path}' gives the images '{image.name}' and '{image.duplicate}' the same id {image.number}, so that "
                "their objects cannot be told apart; give each image an id of its own"
            )
    labels: dict[str, list[object]] = {
        image.name: [sorted({coco.categories[item.category] for item in image.objects})] for image in coco.images
    }
    return LabelFile(labels, LeftOut(coco.dropped))


def _load_lines(path: str) -> dict[str, list[object]]:
    """By image id, what follows it on a line, in which a name may hold blanks."""
    labels: dict[str, list[object]] = {}
    for number, line in enumerate(read_text(path, _HINT).splitlines(), 1):
        line = line.strip()
        name, *rest = re.split(r"\s*\t\s*" if "\t" in line else r"[\s,;]+", line, maxsplit=1)
        if not name:
            continue
        text = rest[0].replace("\t", ",") if rest else ""
        if text == "-1":
            raise SourceError(
                f"{path} line {number}: -1 says that an image lacks one class, as in VOC's ImageSets/Main; a label "
                "file lists the labels of each image"
            )
        labels.setdefault(name, []).append(text)
    return labels


def _load_lists(path: str, names: list[str]) -> dict[str, list[object]]:
    """The named lists, image by image."""
    lists = _load_json(path)
    union: dict[str, list[object]] = {}
    for name in names:
        chosen = lists.get(name) if isinstance(lists, dict) else None
        if not isinstance(chosen, dict):
            raise SourceError(f"'{path}' holds no list '{name}' of image to labels; it has {', '.join(lists)}")
        for image, labels in chosen.items():
            union.setdefault(image, []).append(labels)
    return union


def _load_json(path: str) -> Any:
    try:
        labels = decode_json(read_text(path, _HINT))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(labels, (dict, list)):
        raise SourceError(f"'{path}' holds a JSON {type(labels).__name__}; an object of image id to labels is needed")
    return labels


def _load_npz(path: str, classes: int) -> dict[str, list[object]]:
    try:
        loaded = np.load(io.BytesIO(read_bytes(Location(path))), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise SourceError(f"'{path}' is one bare array and names no images; save an npz with arrays ids and labels")
        arrays = dict(loaded)
    except SampleError as error:
        raise SourceError(f"{error}; {_HINT}") from error
    except SourceError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        pickled = isinstance(error, ValueError) and "pickle" in str(error)
        raise SourceError(f"'{path}': {_UNPICKLE if pickled else error}") from error
    rows = _by_id(path, arrays["ids"], arrays["labels"]) if set(arrays) == {"ids", "labels"} else arrays.items()
    labels: dict[str, list[object]] = {}
    for name, vector in rows:
        labels.setdefault(name, []).append(_one_hot(path, name, vector, classes))
    return labels


def _by_id(path: str, ids: np.ndarray, labels: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    if ids.ndim != 1 or ids.shape != labels.shape[:1]:
        raise SourceError(f"'{path}': ids {ids.shape} and labels {labels.shape} do not belong together")
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    return zip(names, labels, strict=True)


def _one_hot(path: str, name: str, vector: np.ndarray, classes: int) -> list[bool]:
    """A one-hot vector, and nothing else: other arrays are refused, since their meaning would be a guess."""
    if vector.shape != (classes,) or not np.isin(vector, (0, 1)).all():
        raise SourceError(
            f"'{path}': '{name}' is {vector.dtype} {vector.shape}; a one-hot vector of the {classes} classes without "
            "background is needed"
        )
    found: list[bool] = vector.astype(bool).tolist()
    return found
