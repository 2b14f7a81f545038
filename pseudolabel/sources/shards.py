"""WebDataset shards: tars whose members of one basename are one sample."""

import posixpath
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.shard_paths import COMPRESSED, find_shards
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import choose_masks
from pseudolabel.sources.shard_members import read_members
from pseudolabel.sources.shard_samples import ListedSample, list_samples
from pseudolabel.vocabulary import Vocabulary

_THREADS = 8

_Shard = tuple[list[ListedSample], Counter[str]]


def list_shards(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the samples of WebDataset tars by reading each tar's headers once; images are sought later.

    `config.path` is a folder of `.tar` files, a pattern such as `data/train-{000..127}.tar` or `data/*.tar`, or a tar.
    Labels are in `.json` (under `names`, `labels` or `classes`), `.cls` (an index or a name) or `.txt` (names
    separated by commas). A `.png` beside an image of another format is its ground-truth mask; `list_samples` tells the
    rest. With `config.key_prefix` keys begin with the shard's name.

    Raises:
        SourceError: if there is no shard, or one is damaged, cut off or compressed.
    """
    paths, beside = find_shards(config.path)
    if not paths:
        found = f" ({beside})" if beside.total else ""
        raise SourceError(
            f"no shards match '{config.path}'{found}; `source.path` needs a folder of plain .tar files or a pattern"
        )
    prefixes = _names_of(paths) if config.key_prefix else [""] * len(paths)
    with ThreadPoolExecutor(_THREADS) as pool:  # for remote shards, where headers are waited for
        shards = list(pool.map(partial(_list_shard, reader=LabelReader(vocabulary)), paths, prefixes))
    listed = [sample for samples, _ in shards for sample in samples]
    left_out = sum((LeftOut(counted) for _, counted in shards), beside)
    masks = {entry.key: mask for entry, mask in listed if mask is not None}
    entries = [entry for entry, _ in listed]
    return Listing(entries, choose_masks(masks, config.masks, entries), left_out)


def _list_shard(path: str, prefix: str, reader: LabelReader) -> _Shard:
    members, left_out = read_members(path)
    samples, passed_over = list_samples(path, members, prefix, reader)
    return samples, left_out + passed_over


def _names_of(paths: list[str]) -> list[str]:
    """A distinct name for each shard: without suffix, with the folders that differ where names repeat."""
    names = [path.rpartition("/")[2] for path in paths]
    if len({*names}) < len(names):
        common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        names = [path.removeprefix(common).lstrip("/") for path in paths]
    return [f"{_without_suffix(name)}/" for name in names]


def _without_suffix(name: str) -> str:
    ending = next((ending for ending in (".tar", *COMPRESSED) if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)].replace(".", "_")
