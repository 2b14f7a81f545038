"""One sample of a mask shard, checked and ready to be written in another format."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.errors import SampleError
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.shards.find import image_and_target

TRAIN, VAL = "train", "val"
ALL = ""  # the only split where the samples are not split
_JPEG_QUALITY = 95
_ORIENTATION_TAG = 0x0112
_IMAGES = re.compile(r"(^|/)images/")


@dataclass(frozen=True)
class MaskSample:
    """A sample to export.

    Attributes:
        key: the sample's key; it may contain slashes.
        split: `train` or `val`; empty where the samples are not split.
        image: an upright RGB JPEG.
        mask: the shard's own mask file.
        labels: uint8 (H, W); 0 is background, 1..N are classes, and 255 is ignored where the format keeps it.
        is_unchanged: whether `labels` are those of `mask`; else ignored pixels got another label.
        fields: what the shard says of the sample, such as its `confidence`.
    """

    key: str
    split: str
    image: bytes
    mask: bytes
    labels: np.ndarray
    is_unchanged: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[int]:
        """The labels in the mask, without background; 255 is among them where it is kept."""
        return [int(label) for label in np.unique(self.labels) if label != BACKGROUND]

    @property
    def name(self) -> str:
        """The path of the sample's files, without suffix, below a folder of images or masks."""
        return f"{self.split}/{self.key}" if self.split else self.key

    @property
    def paired_name(self) -> str:
        """The same for tools that find a mask by replacing the last folder `images` in an image's path.

        A key's own folders of that name are joined with what follows, `images%2F`, and `%` is written as `%25`, so that
        different keys have different names.
        """
        key = _IMAGES.sub(r"\1images%2F", self.key.replace("%", "%25"))
        return f"{self.split}/{key}" if self.split else key


def split_of(key: str, share: float | None) -> str:
    """`train` for about this share of all keys, else `val`; it depends on the key alone. Empty without a share."""
    if share is None:
        return ALL
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return TRAIN if place < share * 2**64 else VAL


def read_sample(
    path: str, key: str, members: Mapping[str, bytes], classes: int, ignore: int, share: float | None
) -> MaskSample:
    """Check a sample of a shard.

    Args:
        path: of the shard.
        key: the sample's key.
        members: its files by extension.
        classes: number of label values with background.
        ignore: the label that ignored pixels get; 255 keeps them.
        share: of training samples; None for no split.

    Raises:
        SampleError: if image or mask cannot be read, differ in size, or the mask holds a label without a class.
    """
    image, mask = image_and_target(path, key, members)
    labels = read_mask(mask, "the mask")
    jpeg, size = _as_jpeg(image)
    if labels.shape != size:
        raise SampleError("size", f"the mask has {labels.shape} pixels (H, W), the image {size}")
    largest = int(labels[labels != IGNORE].max(initial=BACKGROUND))
    if largest >= classes:
        raise SampleError("unknown_class", f"the mask holds label {largest}, but the classes end at {classes - 1}")
    is_unchanged = ignore == IGNORE or not (labels == IGNORE).any()
    if not is_unchanged:
        labels = np.where(labels == IGNORE, np.uint8(ignore), labels)
    return MaskSample(key, split_of(key, share), jpeg, mask, labels, is_unchanged, _fields(members.get("json", b"")))


def _as_jpeg(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """The image as an upright RGB JPEG, and its (height, width); one that is such already is not decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(_ORIENTATION_TAG, 1) == 1:
                return data, (image.height, image.width)
    except Exception as error:  # whatever damaged bytes make Pillow raise
        raise SampleError("unreadable", f"the image cannot be read: {error or type(error).__name__}") from error
    rgb, _ = decode_image(data, "the image", np.iinfo(np.int64).max)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), (rgb.height, rgb.width)


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError:  # shards of others may have none, or another text
        return {}
    return fields if isinstance(fields, dict) else {}
