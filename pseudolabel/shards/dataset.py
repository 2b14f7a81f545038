"""A plain torch data set of shards: random access to images with their masks or class activation maps."""

import io
import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from torch.utils.data import Dataset

from pseudolabel.errors import SampleError, SettingError, ShardError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.io.tar import Span
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.classes import recorded_classes
from pseudolabel.shards.confident import most_confident
from pseudolabel.shards.find import find_shards, folder_of, hint, warn_if_unfinished
from pseudolabel.shards.index import Stamp, load_index
from pseudolabel.shards.sample import are_final
from pseudolabel.vocabulary import load_vocabulary

OPEN_SHARDS = 128  # per process; each takes two of the 1024 descriptors that a process usually may have
MAX_PIXELS = np.iinfo(np.int64).max  # the images were checked when the shards were written


class RawSample(NamedTuple):
    """A sample before decoding: its shard and key, the image file, and the mask file or the `.npz` of maps."""

    shard: str
    key: str
    image: bytes
    target: bytes


class ShardDataset(Dataset[Any]):
    """Samples of mask or CAM shards by index, in the order of the shards' names and within them.

        dataset = ShardDataset("runs/mine/masks", transform=lambda item: (item["image"] / 255, item["mask"].long()))
        loader = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=4)

    A batch needs images of one size: if they differ, let `transform` resize or crop image and mask.

    An item is a dictionary, or what `transform` makes of it:

    - `key`: the sample's key.
    - `image`: uint8 tensor (3, H, W), RGB.
    - `mask`: uint8 tensor (H, W); 0 is background, 1..N are `names`, 255 is ignored. Only of mask shards.
    - `scores`: float32 tensor (C, H, W) in [0, 1], one map for each of `classes`. Only of CAM shards.
    - `classes`: names of the classes in the mask or of the maps, as a tuple.

    Nothing is held per sample: offsets and keys are in an index file of each shard. A process opens the shards that it
    reads, and reads them by position, so that it may be forked or spawned at any time.

    Args:
        shards: a folder that `refine`, `generate` or `cams` wrote, a tar, a pattern such as
            `masks/masks-{000000..000009}.tar`, or a list of such; local paths or any fsspec URLs.
        vocabulary: the classes, where no file beside the shards names them: a shipped vocabulary or a file.
        transform: called with each item.
        leave_out: share of the images, in [0, 1), to leave out: those whose masks have the least confidence, by the
            `scores.csv` beside the shards.

    Attributes:
        paths: of the shards.
        names: class names by label value, background first; empty where nothing names them.
        holds_cams: whether the items have `scores`; else they have a `mask`.

    Raises:
        ShardError: if there are no shards, or they are compressed, damaged, or hold neither masks nor maps; or
            `leave_out` is given and their images have no confidence.
        SettingError: if `leave_out` is no share.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str],
        vocabulary: str = "",
        transform: Callable[[dict[str, Any]], Any] | None = None,
        leave_out: float = 0.0,
    ) -> None:
        if not 0 <= leave_out < 1:
            raise SettingError(f"`leave_out` {leave_out}: give a share of the images, at least 0 and less than 1")
        self.paths, self.transform = find_shards(shards), transform
        indexes = [load_index(path) for path in self.paths]
        warn_if_unfinished({path: len(index) for path, index in zip(self.paths, indexes, strict=True)})
        self.names = load_vocabulary(vocabulary).names if vocabulary else _recorded_names(self.paths)
        kinds = {index.holds_cams for index in indexes if len(index)}
        if len(kinds) > 1:
            raise ShardError(f"some of the shards in '{shards}' hold masks, others CAMs; give one kind")
        self.holds_cams = True in kinds
        self._stamps = [index.stamp for index in indexes]
        self._ends = list(accumulate(map(len, indexes)))
        self._kept = most_confident(self.paths, indexes, leave_out) if leave_out else None
        if not len(self):
            raise ShardError(f"the shards in '{shards}' hold no samples; see the failures in their ledger entries")
        self._open = lru_cache(OPEN_SHARDS)(_Shard)

    def __len__(self) -> int:
        return self._ends[-1] if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> Any:
        """An item.

        Raises:
            IndexError: if there is no such sample.
            ShardError: if its shard has changed, or the sample is damaged.
        """
        raw = self.read(index)
        try:
            item = self._decode(raw)
        except SampleError as error:
            raise ShardError(f"'{raw.shard}': sample '{raw.key}': {error}; {hint(raw.shard)}") from error
        return item if self.transform is None else self.transform(item)

    def read(self, index: int) -> RawSample:
        """A sample before decoding; errors as of an item."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        if self._kept is not None:
            index = int(self._kept[index])
        number = bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        path = self.paths[number]
        return RawSample(path, *self._open(path, self._stamps[number]).read(index - first))

    def _decode(self, raw: RawSample) -> dict[str, Any]:
        image = np.array(decode_image(raw.image, "the image", MAX_PIXELS)[0])
        item: dict[str, Any] = {"key": raw.key, "image": torch.from_numpy(image).permute(2, 0, 1)}
        if self.holds_cams:
            with np.load(io.BytesIO(raw.target), allow_pickle=False) as arrays:
                labels = arrays["classes"].tolist()
                scores = at_image_size(arrays["maps"], image.shape[:2], are_final(arrays))
                item["scores"] = torch.from_numpy(scores)
        else:
            mask = read_mask(raw.target, "the mask")
            if mask.shape != image.shape[:2]:
                raise SampleError("size", f"the mask has {mask.shape} pixels (H, W), the image {image.shape[:2]}")
            item["mask"] = torch.from_numpy(mask)
            labels = [label for label in np.unique(mask).tolist() if label not in (BACKGROUND, IGNORE)]
        return {**item, "classes": tuple(self._name(label) for label in labels)}

    def _name(self, label: int) -> str:
        return self.names[label] if label < len(self.names) else str(label)

    def __repr__(self) -> str:
        kind = "class activation maps" if self.holds_cams else "masks"
        return f"ShardDataset({len(self):,} images with {kind}, {len(self.paths):,} shards, classes: {self.names[1:]})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open=lru_cache(OPEN_SHARDS)(_Shard))


def _recorded_names(paths: Sequence[str]) -> tuple[str, ...]:
    """The class names in the first file beside shards that has any."""
    folders = dict.fromkeys(map(folder_of, paths))
    found = (recorded.names for folder in folders for recorded in recorded_classes(Folder(folder)))
    return next(found, ())


class _Shard:
    """An open shard; a local file closes itself when the last reader drops it."""

    def __init__(self, path: str, stamp: Stamp) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._fs, self._name = open_filesystem(path)
        try:
            if isinstance(self._fs, LocalFileSystem):
                self._descriptor = os.open(self._name, os.O_RDONLY)
                weakref.finalize(self, os.close, self._descriptor)
            now = Stamp.of(path, self._descriptor)
        except OSError as error:
            raise ShardError(f"shard '{path}' cannot be read: {error.strerror or error}") from error
        self._index = load_index(path)
        if not stamp == now == self._index.stamp:
            raise ShardError(f"shard '{path}' has changed since the data set was opened; open it again")

    def read(self, number: int) -> tuple[str, bytes, bytes]:
        """Key, image file, and mask file or maps."""
        key, image, target = self._index[number]
        return key, self._bytes(key, image), self._bytes(key, target)

    def _bytes(self, key: str, span: Span) -> bytes:
        if self._descriptor is not None:
            data = os.pread(self._descriptor, span.length, span.offset)
        else:
            data = self._fs.cat_file(self._name, start=span.offset, end=span.offset + span.length)
        if len(data) < span.length:
            raise ShardError(f"'{self._path}': sample '{key}': the file ends inside it; {hint(self._path)}")
        return data
