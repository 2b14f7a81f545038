"""Score maps of other programs: the files of one image, decoded to `ScoreMaps`; nothing is fixed silently."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pseudolabel.errors import SampleError
from pseudolabel.io.images import decoding, read_grey
from pseudolabel.io.numpy_file import read_npy
from pseudolabel.records import BACKGROUND, ScoreMaps
from pseudolabel.vocabulary import Vocabulary

CamFormat = Literal["npy", "png", "npz"]
"""`npy`: NumPy's dictionaries, `png`: 8-bit grey images `KEY/CLASS.png`, `npz`: those of our own shards."""

HIGHEST_FIRST = ("attn_highres", "high_res", "cam")  # CLIP-ES; IRNet, which has both others
# SEAM subtracts 1e-5 after scaling, and float16 has 1e-3 between its values below 1.
ROUNDING = 1e-3
_DIFFERENT = "other_classes"
_RANGE = "out_of_range"

Maps = Mapping[int, np.ndarray]
"""Maps by vocabulary index."""


def decode_cam_files(
    files: Mapping[str, bytes],
    kind: CamFormat,
    key: str,
    classes: tuple[int, ...],
    size: tuple[int, int],
    vocabulary: Vocabulary,
) -> ScoreMaps:
    """Decode the score maps of one image.

    Args:
        files: by path; several of one image for PNG, else one.
        kind: their format.
        key: of the image.
        classes: of the image, sorted vocabulary indices; they also tell how a file numbers its maps.
        size: (height, width) of the image.
        vocabulary: names the classes of PNG files.

    Returns:
        float16 maps in the order of the classes, at the files' own resolution.

    Raises:
        SampleError: `other_classes` if the maps are not those of the image's classes; `size_mismatch` if they are
            larger than the image, or as large in one direction only; `out_of_range` if a value is NaN or outside [0, 1]
            by more than rounding; or what the decoder finds.
    """
    origin, final = ", ".join(f"'{name}'" for name in files), True
    if kind == "png":
        found: Maps = _from_pngs(files, vocabulary)
        _check_classes(set(found), classes, origin, vocabulary)
    else:
        [data] = files.values()
        if kind == "npz":
            found, final = _from_npz(data, origin)
            _check_classes(set(found), classes, origin, vocabulary)
        else:
            found = _from_npy(read_npy(data, origin), classes, origin, vocabulary)
    maps = [np.asarray(found[index]) for index in classes]
    if maps:
        _check_values(maps, origin)
        _check_sizes(maps, size if final else None, origin)
    stacked = np.stack(maps) if maps else np.zeros((0, 1, 1))
    return ScoreMaps(key, classes, np.clip(stacked, 0, 1).astype(np.float16), size, final)


def _from_pngs(files: Mapping[str, bytes], vocabulary: Vocabulary) -> Maps:
    found: dict[int, np.ndarray] = {}
    for path, data in files.items():
        name = path.rpartition("/")[2].rpartition(".")[0]
        index = vocabulary.find(name)
        if index is None or index in found:
            why = f"'{name}' is no class of vocabulary '{vocabulary.name}'" if index is None else "a class's second map"
            raise SampleError(_DIFFERENT, f"'{path}': {why}")
        found[index] = read_grey(data, f"'{path}'").astype(np.float32) / 255
    return found


def _from_npz(data: bytes, origin: str) -> tuple[Maps, bool]:
    with decoding(origin), np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if missing := {"maps", "classes"} - set(arrays):
            raise SampleError("unreadable", f"{origin}: no array {' and no array '.join(sorted(missing))}")
        maps = _by_key(arrays["classes"], arrays["maps"], origin)
        return maps, "final" in arrays and bool(arrays["final"])


def _from_npy(content: Any, classes: tuple[int, ...], origin: str, vocabulary: Vocabulary) -> Maps:
    """The maps of an array (C, h, w), of `keys` with an array beside them, or of arrays by class."""
    if isinstance(content, np.ndarray):
        if content.ndim == 3 and len(content) == len(classes):
            return dict(zip(classes, content, strict=True))
        everything = len(vocabulary)
        if content.ndim == 3 and len(content) in (everything, everything + 1):
            return {index: content[index - everything - 1] for index in classes}
        raise SampleError(
            _DIFFERENT,
            f"{origin}: an array of shape {content.shape} for the {len(classes)} classes of the image, of "
            f"{everything} in the vocabulary",
        )
    if not isinstance(content, dict):
        raise SampleError("unreadable", f"{origin}: neither a dictionary nor an array")
    maps = _by_key(content["keys"], _highest(content, origin), origin) if "keys" in content else content
    if not all(isinstance(key, int) and isinstance(maps[key], np.ndarray) for key in maps):
        raise SampleError("unreadable", f"{origin}: no maps by class number, and no 'keys', in {list(maps)!r:.80}")
    return _renumber(maps, classes, origin, vocabulary)


def _highest(content: Mapping[Any, Any], origin: str) -> np.ndarray:
    name = next((name for name in HIGHEST_FIRST if isinstance(content.get(name), np.ndarray)), None)
    if name is None:
        raise SampleError("unreadable", f"{origin}: none of {', '.join(HIGHEST_FIRST)} beside 'keys'")
    return content[name]


def _by_key(keys: Any, maps: np.ndarray, origin: str) -> dict[int, np.ndarray]:
    """Maps by key; the background's key, 0 before the others, may come without a map."""
    numbers = [int(key) for key in np.asarray(keys).ravel()]
    if len(maps) == len(numbers) - 1 and numbers[0] == BACKGROUND:
        return {BACKGROUND: np.zeros(0), **_by_key(numbers[1:], maps, origin)}
    if maps.ndim != 3 or len(maps) != len(numbers) or len(set(numbers)) < len(numbers):
        raise SampleError("unreadable", f"{origin}: maps of shape {maps.shape} for the keys {numbers}")
    return dict(zip(numbers, maps, strict=True))


def _renumber(maps: Maps, classes: tuple[int, ...], origin: str, vocabulary: Vocabulary) -> Maps:
    """Keys count from 0 without background, as IRNet's, or from 1 beside background; the image's classes tell which."""
    wanted = set(classes)
    if {key + 1 for key in maps} == wanted:
        return {key + 1: maps[key] for key in maps}
    if set(maps) - {BACKGROUND} == wanted:
        return maps
    raise SampleError(
        _DIFFERENT,
        f"{origin}: maps for {sorted(maps)}, but the image's classes are {_names(wanted, vocabulary)}, which are "
        f"{sorted(index - 1 for index in wanted)} without background and {sorted(wanted)} beside background",
    )


def _check_classes(found: set[int], classes: tuple[int, ...], origin: str, vocabulary: Vocabulary) -> None:
    missing, further = set(classes) - found, found - set(classes) - {BACKGROUND}
    if missing or further:
        what = [f"no map of {_names(missing, vocabulary)}"] if missing else []
        what += [f"maps of {_names(further, vocabulary)}, which the image's labels lack"] if further else []
        raise SampleError(_DIFFERENT, f"{origin}: {' and '.join(what)}")


def _names(indices: set[int], vocabulary: Vocabulary) -> str:
    names = vocabulary.names
    return ", ".join(f"'{names[index]}'" if 0 <= index < len(names) else str(index) for index in sorted(indices))


def _check_values(maps: Sequence[np.ndarray], origin: str) -> None:
    for one_map in maps:
        if one_map.ndim != 2 or not one_map.size or one_map.dtype.kind not in "fiub":
            raise SampleError("unreadable", f"{origin}: a map of {one_map.dtype} of shape {one_map.shape}, not (h, w)")
        if not np.isfinite(one_map).all():
            raise SampleError(_RANGE, f"{origin}: a map holds NaN or infinity")
        low, high = float(one_map.min()), float(one_map.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise SampleError(_RANGE, f"{origin}: values from {low:g} to {high:g}; scale each map to [0, 1]")


def _check_sizes(maps: Sequence[np.ndarray], size: tuple[int, int] | None, origin: str) -> None:
    """Maps have one size: the image's or a lower resolution; maps that are scaled again may have any."""
    shapes = {one_map.shape for one_map in maps}
    shape = next(iter(shapes))
    if len(shapes) > 1:
        raise SampleError("size_mismatch", f"{origin}: maps of several sizes, {sorted(shapes)}")
    is_lower = size is None or (shape[0] < size[0] and shape[1] < size[1])
    if not is_lower and shape != size:
        raise SampleError("size_mismatch", f"{origin}: maps of {shape}, but the image is {size} (height, width)")
