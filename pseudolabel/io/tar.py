"""WebDataset tar files whose bytes depend only on their content."""

from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

Members = Mapping[str, bytes]


def write_tar(file: BinaryIO, samples: Iterable[tuple[str, Members]]) -> None:
    """Write (key, {extension: bytes}) pairs as one WebDataset shard; its headers have no times and no owners."""
    writer = webdataset.TarWriter(file, user="", group="", encoder=False, mtime=0, format="PAX_FORMAT")
    with writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})


def read_tar(file: BinaryIO) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read the (key, {extension: bytes}) pairs of a shard in order.

    Raises:
        tarfile.TarError: if the file is not a complete tar.
    """
    for sample in group_by_keys(tar_file_expander([{"url": "", "stream": file}])):
        yield sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}
