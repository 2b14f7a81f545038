"""Label files: one JSON or npz file that holds the image-level labels of a whole data set."""

import io
import json
import zipfile

import numpy as np

from pseudolabel.sources.entry import BadSample, SourceError
from pseudolabel.sources.files import Location, read_bytes, read_text

_MEND = "set --source.labels to xml, masks, or the path of a JSON or npz file"
_UNPICKLE = (
    "pickled arrays are not opened, since they can run code; convert a file you trust with "
    'python -c "import numpy as np; '
    "np.savez('cls_labels.npz', **np.load('cls_labels.npy', allow_pickle=True).item())\""
)


def load_label_file(path: str, classes: int) -> dict[str, object]:
    """Load the labels of every image.

    A JSON file is an object from image id to a list of class names or of 0-based class indices without background. An
    npz file holds one-hot vectors of all classes without background: either one array per image id, or the arrays
    `ids` (n,) and `labels` (n, classes).

    Args:
        path: local path or fsspec URL.
        classes: number of classes without background, the length of a one-hot vector.

    Returns:
        Labels by image id, as `LabelReader.read` takes them.

    Raises:
        SourceError: if the file is missing, pickled, or of another layout.
    """
    suffix = path.rpartition(".")[2].lower()
    if suffix == "json":
        return _load_json(path)
    if suffix in ("npz", "npy"):
        return _load_npz(path, classes)
    raise SourceError(f"labels '{path}' cannot be read; {_MEND}")


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
