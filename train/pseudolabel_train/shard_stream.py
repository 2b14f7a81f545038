"""The pseudo-masks of remote or very many shards, read one shard after the other."""

import math
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import webdataset
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from mmseg.registry import DATASETS
from torch.utils.data import IterableDataset, get_worker_info

from pseudolabel.errors import ShardError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.tar import read_tar
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.epoch_counter import EpochCounter
from pseudolabel_train.loading import dataset_metainfo, sample_results
from pseudolabel_train.shard_classes import check_vocabulary
from pseudolabel_train.shard_list import count_samples, find_shards, hint, image_and_mask

_INITIAL = 100  # samples in the shuffle buffer before the first is drawn; it goes on filling while samples leave it

RawSample = tuple[str, str, bytes, bytes]  # shard, key, image file, mask file


@DATASETS.register_module()
class ShardStream(IterableDataset):
    """Samples of mask shards on a local disk or behind any fsspec URL (`s3://`, `hf://`, ...), read in sequence.

    Each epoch puts the shards into a new order, takes their samples as one list, and cuts it into equal, contiguous
    parts for the ranks, and these into parts for their workers. A cut may fall inside a shard, so there may be fewer
    shards than ranks and workers, and shards may differ in size.

    With T samples in all and R ranks, every rank yields exactly n = ceil(T / R) samples per epoch, which is `len()`.
    Nothing is left out. The R * n samples are the list, begun again where it ends: its first R * n - T samples (fewer
    than R) are yielded twice, all others once. Only where T < R does a sample come more often.

    Samples pass through a shuffle buffer on their way. Their order depends on `seed`, `buffer`, `batch_size`, the epoch
    and the numbers of ranks and workers alone. The stream counts the epochs itself: every pass over the DataLoader is
    the next one, with workers that persist and with such that do not.

    In the config of a DataLoader `sampler` is None. `IterBasedTrainLoop` begins the next epoch by itself (and waits two
    seconds before). It resumes by reading what was trained on again, which `ShardDataset` need not.

    Args:
        shards: a folder, a tar, a pattern such as `s3://bucket/masks/masks-{000000..000127}.tar`, or a list of such.
        vocabulary: a shipped vocabulary's name, such as `voc`, or a YAML file.
        pipeline: configs of transforms, `LoadShardSample` first.
        samples: of each shard, one number where all hold the same; by default the ledger beside the shards tells.
        shuffle: the order of the shards and of the samples.
        buffer: most samples, undecoded, that wait in a worker for being drawn; 1000 of VOC's take about 100 MB.
        seed: of the order; the same on all ranks.
        batch_size: the DataLoader's. With it workers get whole batches, so that only one batch of an epoch can be a
            small one, and the DataLoader's length is exact.

    Raises:
        ShardError: if there are no shards or samples, nothing tells their number, or they are of other classes; while
            reading, if a shard cannot be read, holds another number of samples, or holds CAMs.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        vocabulary: str,
        pipeline: Sequence[dict[str, Any] | Callable] = (),
        samples: int | Sequence[int] | None = None,
        shuffle: bool = True,
        buffer: int = 1000,
        seed: int = 0,
        batch_size: int = 1,
    ) -> None:
        if buffer < 1 or batch_size < 1:
            raise ShardError(f"buffer={buffer} and batch_size={batch_size} must be 1 or more")
        self.vocabulary = load_vocabulary(vocabulary)
        self.paths = find_shards(shards)
        check_vocabulary(self.paths, self.vocabulary)
        self.counts = count_samples(self.paths, samples)
        self.total = int(self.counts.sum())
        if not self.total:
            raise ShardError(f"the shards in '{shards}' hold no samples; see the failures in their ledger entries")
        self.shuffle, self.buffer, self.seed, self.batch_size = shuffle, buffer, seed, batch_size
        self.rank, self.ranks = get_dist_info()  # asked here, because workers do not know
        self.pipeline = Compose(pipeline)
        self._metainfo = dataset_metainfo(self.vocabulary)
        self._epochs = EpochCounter()

    @property
    def metainfo(self) -> dict[str, Any]:
        """`classes` and `palette` by label value, and `reduce_zero_label`; see `dataset_metainfo`."""
        return dict(self._metainfo)

    def __len__(self) -> int:
        """Samples that this rank yields per epoch."""
        return math.ceil(self.total / self.ranks)

    def __iter__(self) -> Iterator[Any]:
        """The part of the next epoch that belongs to this rank and this worker of its DataLoader."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self._process(self._epochs.take(), number, workers)

    def _process(self, epoch: int, worker: int, workers: int) -> Iterator[Any]:
        samples = self._read(epoch, *self._part(worker, workers))
        if self.shuffle:
            draw = random.Random(f"{self.seed} {epoch} {self.rank} {worker}")
            samples = webdataset.shuffle(self.buffer, initial=_INITIAL, rng=draw)(samples)
        for path, key, image, mask in samples:
            data = self.pipeline(sample_results(path, key, image, mask, self._metainfo))
            if data is None:
                raise ShardError(
                    f"a transform of the pipeline gives nothing for '{path}/{key}'; take that transform out"
                )
            yield data

    def _part(self, worker: int, workers: int) -> tuple[int, int]:
        """First and last + 1 of a worker's positions in the epoch's list; all but the rank's last are whole batches."""
        batches = math.ceil(len(self) / self.batch_size)
        first, last = (number * batches // workers * self.batch_size for number in (worker, worker + 1))
        return self.rank * len(self) + first, self.rank * len(self) + min(last, len(self))

    def _read(self, epoch: int, first: int, last: int) -> Iterator[RawSample]:
        """The samples at positions of the epoch's list, which begins again where it ends."""
        order = np.arange(len(self.paths))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        ends = np.cumsum(self.counts[order])
        while first < last:
            position = first % self.total
            place = int(np.searchsorted(ends, position, side="right"))
            start = position - int(ends[place] - self.counts[order[place]])
            length = min(last - first, int(ends[place]) - position)
            yield from self._read_shard(int(order[place]), start, start + length)
            first += length

    def _read_shard(self, number: int, start: int, stop: int) -> Iterator[RawSample]:
        path, count = self.paths[number], int(self.counts[number])
        fs, name = open_filesystem(path)
        found = 0
        try:
            with fs.open(name, "rb") as file:
                for key, members in read_tar(file):
                    found += 1
                    if start < found <= stop:
                        yield path, key, *image_and_mask(path, key, members)
                    if found == stop < count or found > count:
                        break
        except ShardError:
            raise
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            raise ShardError(f"shard '{path}' cannot be read after sample {found}: {error}; {hint(path)}") from error
        if found < stop or found > count:
            told = f"{found} samples" if found < stop else f"more than {count} samples"
            raise ShardError(f"shard '{path}' holds {told} where {count} are listed; {hint(path)}")
