"""Pseudo-mask shards as a data set of MMSegmentation."""

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from pseudolabel.errors import ShardError
from pseudolabel.shards import dataset
from pseudolabel.shards.classes import check_vocabulary
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.loading import dataset_metainfo, sample_results


@DATASETS.register_module()
class ShardDataset(Dataset):
    """`pseudolabel.ShardDataset` of mask shards, for samplers that shuffle, resume and balance ranks.

    Args:
        shards: a folder that `pseudolabel refine` wrote, a tar, a pattern such as `masks/masks-{000000..000009}.tar`,
            or a list of such; local paths or any fsspec URLs.
        vocabulary: a shipped vocabulary's name, such as `voc`, or a YAML file.
        pipeline: configs of transforms, `LoadShardSample` first.
        test_mode: taken because MMSegmentation's loaders give it; a sample that cannot be read is an error in any mode.
        leave_out: share of the images to leave out, those of the least confident masks; 0 keeps all.

    Raises:
        ShardError: if there are no shards, or they are compressed, damaged, hold CAMs, or are of other classes.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        vocabulary: str,
        pipeline: Sequence[dict[str, Any] | Callable] = (),
        test_mode: bool = False,
        leave_out: float = 0.0,
    ) -> None:
        self.shards, self.test_mode, self.vocabulary = shards, test_mode, load_vocabulary(vocabulary)
        self.samples = dataset.ShardDataset(shards, vocabulary, leave_out=leave_out)
        check_vocabulary(self.samples.paths, self.vocabulary)
        if self.samples.holds_cams:
            raise ShardError(
                f"'{shards}' holds CAMs, not pseudo-masks; make masks of them with `pseudolabel refine` first"
            )
        self._metainfo = dataset_metainfo(self.vocabulary)
        self.pipeline = Compose(pipeline)

    def full_init(self) -> None:
        """Nothing: the shards are indexed at once; MMEngine's wrappers of data sets call it."""

    @property
    def metainfo(self) -> dict[str, Any]:
        """`classes` and `palette` by label value, and `reduce_zero_label`; see `dataset_metainfo`."""
        return dict(self._metainfo)

    def __len__(self) -> int:
        return len(self.samples)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """A sample before the pipeline, undecoded; its fields are those of `sample_results` and `sample_idx`.

        Raises:
            IndexError: if there is no such sample.
            ShardError: if its shard has changed or cannot be read.
        """
        raw = self.samples.read(idx)
        return {**sample_results(*raw, self._metainfo), "sample_idx": idx % len(self)}

    def __getitem__(self, idx: int) -> Any:
        """A sample after the pipeline.

        Raises:
            ShardError: if it cannot be read, or a transform gives nothing for it; no other sample takes its place.
        """
        results = self.get_data_info(idx)
        name = results["img_path"]
        data = self.pipeline(results)
        if data is None:
            raise ShardError(f"a transform of the pipeline gives nothing for '{name}'; remove that transform")
        return data
