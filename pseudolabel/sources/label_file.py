"""Label files: the image-level labels of a whole data set beside the images."""

import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np

from pseudolabel.sources.entry import IMAGE_PROBLEMS, BadSample, Entry, SourceError, key_of
from pseudolabel.sources.files import Location, is_folder, read_bytes, read_text
from pseudolabel.sources.jsonl import read_lines
from pseudolabel.sources.labels import LabelReader
from pseudolabel.vocabulary import Vocabulary

_MEND = (
    "set --source.labels to xml, masks, none, or the path of a JSON, JSONL or npz file or of a folder of JSONL files"
)
_UNPICKLE = (
    "pickled arrays are not opened, since they can run code; convert a file you trust with "
    'python -c "import numpy as np; '
    "np.savez('cls_labels.npz', **np.load('cls_labels.npy', allow_pickle=True).item())\""
)


def label_by_file(entries: list[Entry], path: str, vocabulary: Vocabulary) -> list[Entry]:
    """The entries with a label file's labels instead of their own; images that it leaves out are bad samples.

    Raises:
        SourceError: if the file cannot be used, or labels none of the images.
    """
    labels = {key_of(f"{name}.jpg"): found for name, found in load_label_file(path, len(vocabulary)).items()}
    if entries and not any(entry.key in labels for entry in entries):
        raise SourceError(
            f"'{path}' labels none of the images, such as '{entries[0].key}'; it may belong to another data set"
        )
    reader = LabelReader(vocabulary)

    def label(entry: Entry) -> Entry:
        if entry.key not in labels:
            message = f"labels: '{path}' has none for '{entry.key}'; write [] for an image without objects"
            return replace(entry, classes=(), problem=("missing", message))
        classes, problem = reader.read(labels[entry.key], f"{path} '{entry.key}'")
        return replace(entry, classes=classes, problem=problem or entry.problem)

    return [label(entry) for entry in map(without_labels, entries)]


def without_labels(entry: Entry) -> Entry:
    """The entry without its labels; a problem of the image itself remains."""
    problem = entry.problem if entry.problem is not None and entry.problem[0] in IMAGE_PROBLEMS else None
    return replace(entry, classes=(), problem=problem)


def load_label_file(path: str, classes: int) -> dict[str, object]:
    """Load the labels of every image.

    A JSON file is an object from image id to a list of class names or of 0-based class indices without background. One
    with several such objects by name, as DiffSegmenter's authors have published, is followed by the names of those
    whose union is wanted: `lists.json#image_similarity+text_similarity`. JSONL files, one or a folder of them, hold
    lines of `key` and `classes`, as `pseudolabel filter` writes them. An npz file holds one-hot vectors of all classes
    without background: either one array per image id, or the arrays `ids` (n,) and `labels` (n, classes).

    Args:
        path: local path or fsspec URL.
        classes: number of classes without background, the length of a one-hot vector.

    Returns:
        Labels by image id, as `LabelReader.read` takes them.

    Raises:
        SourceError: if the file is missing, pickled, or of another layout.
    """
    if is_folder(path) or path.lower().endswith(".jsonl"):
        return dict(read_lines(path, ("key", "classes"), "label line", _MEND))
    chosen = re.fullmatch(r"(.*\.json)#(.+)", path, re.IGNORECASE)
    if chosen:
        return _load_lists(chosen[1], chosen[2].split("+"))
    suffix = path.rpartition(".")[2].lower()
    if suffix == "json":
        return _load_labels(path)
    if suffix in ("npz", "npy"):
        return _load_npz(path, classes)
    raise SourceError(f"labels '{path}' cannot be read; {_MEND}")


def _load_labels(path: str) -> dict[str, object]:
    labels = _load_json(path)
    lists = [name for name, value in labels.items() if isinstance(value, dict)]
    if lists:
        raise SourceError(f"'{path}' holds several lists of labels; choose: {path}#{'+'.join(lists)}, or some of them")
    return labels


def _load_lists(path: str, names: list[str]) -> dict[str, object]:
    """Union of the named lists, image by image."""
    lists = _load_json(path)
    union: dict[str, list[object]] = {}
    for name in names:
        chosen = lists.get(name)
        if not isinstance(chosen, dict):
            raise SourceError(f"'{path}' holds no list '{name}' of image to labels; it has {', '.join(lists)}")
        for image, labels in chosen.items():
            union.setdefault(image, []).extend(labels)
    return {**union}


def _load_json(path: str) -> dict[str, object]:
    try:
        labels = json.loads(read_text(path, _MEND))
    except json.JSONDecodeError as error:
        raise SourceError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(labels, dict):
        raise SourceError(f"'{path}' holds a JSON {type(labels).__name__}; an object of image id to labels is needed")
    return labels


def _load_npz(path: str, classes: int) -> dict[str, object]:
    try:
        loaded = np.load(io.BytesIO(read_bytes(Location(path))), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise SourceError(f"'{path}' is one bare array and names no images; save an npz with arrays ids and labels")
        arrays = dict(loaded)
    except BadSample as error:
        raise SourceError(f"{error}; {_MEND}") from error
    except SourceError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        pickled = isinstance(error, ValueError) and "pickle" in str(error)
        raise SourceError(f"'{path}': {_UNPICKLE if pickled else error}") from error
    if set(arrays) == {"ids", "labels"}:
        arrays = _by_id(path, arrays["ids"], arrays["labels"])
    return {name: _indices(path, name, vector, classes) for name, vector in arrays.items()}


def _by_id(path: str, ids: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    if ids.ndim != 1 or len(ids) != len(labels):
        raise SourceError(f"'{path}': ids {ids.shape} and labels {labels.shape} do not belong together")
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    return dict(zip(names, labels, strict=True))


def _indices(path: str, name: str, vector: np.ndarray, classes: int) -> list[int]:
    """0-based class indices of a one-hot vector; anything else is refused, since its meaning would be a guess."""
    if vector.shape != (classes,) or not np.isin(vector, (0, 1)).all():
        raise SourceError(
            f"'{path}': '{name}' is {vector.dtype} {vector.shape}; a one-hot vector of the {classes} classes without "
            "background is needed"
        )
    return [int(index) for index in np.flatnonzero(vector)]
