"""What a source lists before anything is opened: one `Entry` per image."""

from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.names import printable
from pseudolabel.io.parquet import Cell
from pseudolabel.io.tar import is_meta

TWO_IMAGES = "two_images"
UNDECODABLE_NAME = "undecodable_name"
SPARSE = "sparse"
IMAGE_PROBLEMS = ("missing", TWO_IMAGES, UNDECODABLE_NAME, SPARSE)  # what remains where labels are taken from elsewhere


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a source's list; cheap, so that a million of them fit in memory.

    Attributes:
        key: unique within the source and tar-safe.
        path: where the image is: a local path or any fsspec URL.
        classes: sorted vocabulary indices (1..N) of the image-level labels.
        origin: the file and line (or the shard and member) that named the image, for messages.
        problem: the failure found while listing, such as an unknown class; else None.
        offset, length: the image's bytes inside `path` where that is a tar shard; else None.
        cell: the image's bytes inside `path` where that is a Parquet file; else None.
    """

    key: str
    path: str
    classes: tuple[int, ...]
    origin: str
    problem: SampleError | None = None
    offset: int | None = None
    length: int | None = None
    cell: Cell | None = None

    @property
    def image_name(self) -> str:
        """The image's path, its member's name inside the shard, or its key, which is made of its name in Parquet."""
        if self.cell is not None:
            return self.key
        return self.path if self.offset is None else self.origin.removeprefix(f"{self.path}: ")


def key_of(path: str | Path) -> str:
    """A tar-safe key from a relative path: the suffix dropped, dots and separators made safe, bytes escaped.

    WebDataset takes everything before the first dot of the basename as the key, so `a.b.jpg` becomes `a_b`. Accents are
    composed (NFC), whichever way the file system has them.

    Raises:
        SourceError: if nothing remains of the name.
    """
    # Text instead of pathlib, which takes longer than all the rest of listing a table.
    parts = [part for part in printable(str(path)).split("/") if part not in ("", ".", "..")]
    if not parts:
        raise SourceError(f"'{path}' gives no key; name the file or set a key column")
    dot = parts[-1].rfind(".")
    if 0 < dot < len(parts[-1]) - 1:
        parts[-1] = parts[-1][:dot]
    key = normalize("NFC", "/".join(parts).replace(".", "_").replace("\0", "\\x00"))
    return f"-{key}" if is_meta(f"{key}.jpg") else key
