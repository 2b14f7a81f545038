"""WebDataset tars whose bytes depend on their content alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

Members = Mapping[str, bytes]


def write_tar(file: BinaryIO, samples: Iterable[tuple[str, Members]]) -> None:
    """Write (key, {extension: bytes}) pairs as one WebDataset shard, without times or owners in its headers."""
    writer = webdataset.TarWriter(file, user="", group="", encoder=False, mtime=0, format="PAX_FORMAT")
    with writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})


def read_tar(file: BinaryIO) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read the (key, {extension: bytes}) pairs of a shard in their order.

    Raises:
        tarfile.TarError: if the file is no whole tar.
    """
    for sample in group_by_keys(tar_file_expander([{"url": "", "stream": file}])):
        yield sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}
