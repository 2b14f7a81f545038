"""`png`: images and single-channel masks, whose values are class indices in every reader."""

import io
import struct
import zlib

import yaml
from PIL import Image

from pseudolabel.exports.format import Collected, Encoded, Format, Settings
from pseudolabel.exports.sample import ALL, MaskSample
from pseudolabel.vocabulary import voc_palette

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # of the signature and the first chunk
_PALETTE_TYPE = bytes([8, 3])  # bits and colour type
_PALETTE = b"PLTE" + voc_palette().tobytes()


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`images/KEY.jpg` and `masks/KEY.png`, below the split's folder if there are splits."""
    name = sample.paired_name
    return Encoded({f"images/{name}.jpg": sample.image, f"masks/{name}.png": grey_png(sample)}, {})


def grey_png(sample: MaskSample) -> bytes:
    """The labels as an 8-bit grey PNG."""
    if sample.is_unchanged and has_voc_palette(sample.mask):
        return _without_palette(sample.mask)
    buffer = io.BytesIO()
    Image.fromarray(sample.labels).save(buffer, "PNG")
    return buffer.getvalue()


def has_voc_palette(png: bytes) -> bool:
    """Whether a mask is an 8-bit PNG with VOC's palette right behind its header, as our shards have them."""
    palette = png[_HEADER_END + 4 : _HEADER_END + 4 + len(_PALETTE)]
    return png.startswith(_SIGNATURE) and png[24:26] == _PALETTE_TYPE and palette == _PALETTE


def _without_palette(png: bytes) -> bytes:
    """The same pixels as grey values; they are not compressed again, which would take most of the time."""
    header = b"IHDR" + png[16:25] + b"\0" + png[26:29]
    rest = png[_HEADER_END + len(_PALETTE) + 8 :]
    return _SIGNATURE + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + rest


def finish(collected: Collected, settings: Settings) -> None:
    """`data.yaml`, as Ultralytics reads it for semantic segmentation; it needs no `path`, so the folder may move."""
    data = {**split_folders(settings), "masks_dir": "masks", "names": dict(enumerate(settings.classes.names))}
    with collected.write("data.yaml") as file:
        file.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())


def split_folders(settings: Settings) -> dict[str, str]:
    """The folders of images for training and validation; where there are no splits, all images are for both."""
    if settings.splits == (ALL,):
        return {"train": "images", "val": "images"}
    return {split: f"images/{split}" for split in settings.splits}


PNG = Format(encode, finish)
