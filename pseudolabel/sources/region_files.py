"""Class-free masks of images: one file per image, by key, or shards of segments."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import Location, files_in, is_folder, join, read_bytes
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.images import decoding, read_mask
from pseudolabel.io.json_text import decode_json
from pseudolabel.io.tar import read_spans
from pseudolabel.io.walk import find_files
from pseudolabel.sources.outlines import rasterise

RegionsOrigin = Literal["mask_trained", "segments"]
"""Who made the masks: a model that may have been trained on masks, or this package's `segment`, which is not."""

MISSING = "no_regions"  # status of an image without a file
_UNREADABLE, _SIZE = "unreadable", "size_mismatch"
_SHARD, _SUFFIXES = "segments-", (".png", ".json", ".npz")
_HINT = "give a folder with KEY.png, KEY.json or KEY.npz for each image, or one of shards that `segment` wrote"


@dataclass(frozen=True)
class RegionFile:
    """The masks of one image.

    Attributes:
        location: where they are.
        suffix: their format: `.png`, a label map in which each value but 0 is a mask; `.json`, COCO's annotations, or
            a list of them as Segment Anything writes; `.npz`, an array `masks` (M, H, W), or the only array.
        origin: who made them.
    """

    location: Location
    suffix: str
    origin: RegionsOrigin

    def read(self, size: tuple[int, int]) -> list[np.ndarray]:
        """The masks, bool (H, W) each; they may overlap and be empty.

        Raises:
            SampleError: `size_mismatch` if they are of another size; `missing`, `truncated` or `unreadable`.
        """
        origin, data = f"'{self.location.path}'", read_bytes(self.location)
        if self.suffix == ".png":
            labels = read_mask(data, origin)
            _check_size(labels.shape, size, origin)
            return [labels == value for value in np.unique(labels) if value]
        if self.suffix == ".json":
            return _from_json(data, size, origin)
        return _from_npz(data, size, origin)


@dataclass(frozen=True)
class Regions:
    """The masks of a folder's images.

    Attributes:
        path: the folder.
        files: by key.
        origin: who made them.
    """

    path: str
    files: Mapping[str, RegionFile]
    origin: RegionsOrigin

    def find(self, key: str) -> RegionFile:
        """The masks of an image.

        Raises:
            SampleError: `no_regions` if there is no file of the key.
        """
        if key not in self.files:
            raise SampleError(MISSING, f"no masks of '{key}' in '{self.path}' (`refine.regions`)")
        return self.files[key]


def open_regions(path: str) -> Regions:
    """List a folder of masks.

    Args:
        path: local path or fsspec URL of a folder of files named as the images' keys, or of segment shards.

    Raises:
        SourceError: if there are none, or an image has two files.
    """
    if not is_folder(path):
        raise SourceError(f"`refine.regions` {path}: no such folder; {_HINT}")
    shards = [name for name in files_in(path, ".tar") if name.rpartition("/")[2].startswith(_SHARD)]
    if shards:
        return Regions(path, _in_shards(shards), "segments")
    files: dict[str, RegionFile] = {}
    for suffix in _SUFFIXES:
        for name in find_files(path, suffix)[0]:
            key = name[: -len(suffix)]
            if key in files:
                raise SourceError(f"`refine.regions` {path}: '{key}' has several files; remove all but one")
            files[key] = RegionFile(Location(join(path, name)), suffix, "mask_trained")
    if not files:
        raise SourceError(f"`refine.regions` {path}: no masks in it; {_HINT}")
    return Regions(path, files, "mask_trained")


def _in_shards(paths: list[str]) -> dict[str, RegionFile]:
    files = {}
    for path in paths:
        fs, name = open_filesystem(path)
        with fs.open(name, "rb") as file:
            for key, members in read_spans(file):
                span = members["png"]
                files[key] = RegionFile(Location(path, span.offset, span.length), ".png", "segments")
    return files


def _from_json(data: bytes, size: tuple[int, int], origin: str) -> list[np.ndarray]:
    try:
        content: Any = decode_json(data.decode())
        rows = content["annotations"] if isinstance(content, dict) else content
        return [rasterise(row["segmentation"], *size) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SampleError(_UNREADABLE, f"{origin}: {error!r:.200}") from error


def _from_npz(data: bytes, size: tuple[int, int], origin: str) -> list[np.ndarray]:
    with decoding(origin), np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        names = list(arrays)
        if "masks" not in names and len(names) != 1:
            raise SampleError(_UNREADABLE, f"{origin}: no array `masks` among {names}")
        masks = arrays["masks" if "masks" in names else names[0]]
    if masks.ndim != 3 or masks.dtype.kind not in "bui":
        raise SampleError(_UNREADABLE, f"{origin}: {masks.dtype} of shape {masks.shape}, not bool (M, H, W)")
    _check_size(masks.shape[1:], size, origin)
    return list(masks.astype(bool))


def _check_size(found: tuple[int, ...], size: tuple[int, int], origin: str) -> None:
    if tuple(found) != size:
        raise SampleError(_SIZE, f"{origin}: {tuple(found)} where the image is {size} (height, width)")
