"""Random access to the pseudo-masks of local shards, for samplers that shuffle, resume and balance ranks."""

import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from pseudolabel.errors import ShardError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.loading import dataset_metainfo, sample_results
from pseudolabel_train.shard_classes import check_vocabulary
from pseudolabel_train.shard_index import Span, Stamp, load_index
from pseudolabel_train.shard_list import find_shards, hint, warn_if_unfinished

OPEN_SHARDS = 128  # per process; each takes two of the 1024 descriptors that a process usually may have


@DATASETS.register_module()
class ShardDataset(Dataset):
    """Samples of local mask shards by number, in the order of the shards' names and within them.

    Nothing is held per sample: offsets and keys stay in an index file of each shard. A process opens the shards that it
    reads, and reads them by position, so that it may be forked or spawned at any time.

    Args:
        shards: a folder that `pseudolabel refine` wrote, a tar, a pattern such as `masks/masks-{000000..000009}.tar`,
            or a list of such.
        vocabulary: a shipped vocabulary's name, such as `voc`, or a YAML file.
        pipeline: configs of transforms, `LoadShardSample` first.
        test_mode: taken because MMSegmentation's loaders give it; a sample that cannot be read is an error in any mode.

    Raises:
        ShardError: if there are no shards, or they are remote, compressed, damaged, hold CAMs, or are of other classes.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        vocabulary: str,
        pipeline: Sequence[dict[str, Any] | Callable] = (),
        test_mode: bool = False,
    ) -> None:
        self.shards, self.test_mode = shards, test_mode
        self.vocabulary = load_vocabulary(vocabulary)
        self._metainfo = dataset_metainfo(self.vocabulary)
        self.pipeline = Compose(pipeline)
        self._ends: list[int] = []
        self._open = lru_cache(OPEN_SHARDS)(_Shard)
        self.full_init()

    def full_init(self) -> None:
        """List and index the shards, unless that is done."""
        if self._ends:
            return
        self.paths = [_local(path) for path in find_shards(self.shards)]
        check_vocabulary(self.paths, self.vocabulary)
        indexes = [load_index(path) for path in self.paths]
        warn_if_unfinished({path: len(index) for path, index in zip(self.paths, indexes, strict=True)})
        self._stamps = [index.stamp for index in indexes]
        self._ends = list(accumulate(map(len, indexes)))
        if not self._ends[-1]:
            raise ShardError(f"the shards in '{self.shards}' hold no samples; see the failures in their ledger entries")

    @property
    def metainfo(self) -> dict[str, Any]:
        """`classes` and `palette` by label value, and `reduce_zero_label`; see `dataset_metainfo`."""
        return dict(self._metainfo)

    def __len__(self) -> int:
        return self._ends[-1]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """A sample before the pipeline, undecoded; its fields are those of `sample_results` and `sample_idx`.

        Raises:
            IndexError: if there is no such sample.
            ShardError: if its shard has changed or cannot be read.
        """
        if not -len(self) <= idx < len(self):
            raise IndexError(f"sample {idx} of {len(self)}")
        idx %= len(self)
        number = bisect_right(self._ends, idx)
        first = self._ends[number - 1] if number else 0
        path = self.paths[number]
        results = sample_results(path, *self._open(path, self._stamps[number]).read(idx - first), self._metainfo)
        return {**results, "sample_idx": idx}

    def __getitem__(self, idx: int) -> Any:
        """A sample after the pipeline.

        Raises:
            ShardError: if it cannot be read, or a transform gives nothing for it; no other sample takes its place.
        """
        results = self.get_data_info(idx)
        name = results["img_path"]
        data = self.pipeline(results)
        if data is None:
            raise ShardError(f"a transform of the pipeline gives nothing for '{name}'; take that transform out")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open=lru_cache(OPEN_SHARDS)(_Shard))


class _Shard:
    """An open shard; it closes itself when the last one who reads it lets go."""

    def __init__(self, path: str, stamp: Stamp) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(f"shard '{path}' cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._index = load_index(path)
        if not stamp == Stamp.of(self._descriptor) == self._index.stamp:
            raise ShardError(f"shard '{path}' was written anew while it is trained on; start the training again")

    def read(self, number: int) -> tuple[str, bytes, bytes]:
        """Key, image file and mask file."""
        key, image, mask = self._index[number]
        return key, self._bytes(key, image), self._bytes(key, mask)

    def _bytes(self, key: str, span: Span) -> bytes:
        data = os.pread(self._descriptor, span.length, span.offset)
        if len(data) < span.length:
            raise ShardError(f"'{self._path}': sample '{key}': the file ends inside it; {hint(self._path)}")
        return data


def _local(path: str) -> str:
    fs, name = open_filesystem(path)
    if not isinstance(fs, LocalFileSystem):
        raise ShardError(f"'{path}' is remote; use type='ShardStream' for it, or copy the shards to a local disk")
    return name if "://" in path else path
