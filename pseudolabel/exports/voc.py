"""`voc`: the folders of PASCAL VOC, with palette masks."""

import io

from pseudolabel.exports.format import Collected, Encoded, Format, Settings
from pseudolabel.exports.png import has_voc_palette
from pseudolabel.exports.sample import ALL, TRAIN, VAL, MaskSample
from pseudolabel.io.images import mask_image

LISTS = "ImageSets/Segmentation"
MASKS = "SegmentationClass"


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`JPEGImages/KEY.jpg` and `SegmentationClass/KEY.png`; the masks' bytes are those of our shards."""
    files = {f"JPEGImages/{sample.key}.jpg": sample.image, f"{MASKS}/{sample.key}.png": palette_png(sample)}
    return Encoded(files, {})


def palette_png(sample: MaskSample) -> bytes:
    """The labels as a PNG with VOC's palette."""
    if sample.is_unchanged and has_voc_palette(sample.mask):
        return sample.mask
    buffer = io.BytesIO()
    mask_image(sample.labels).save(buffer, "PNG")
    return buffer.getvalue()


def finish(collected: Collected, settings: Settings) -> None:
    """The lists of keys: `train.txt` and `val.txt` where there are splits, and `trainval.txt`."""
    lists = {"trainval": settings.splits, "train": (TRAIN,), "val": (VAL,)}
    if settings.splits == (ALL,):
        lists = {"trainval": (ALL,), "train": (ALL,)}
    for name, splits in lists.items():
        with collected.write(f"{LISTS}/{name}.txt") as file:
            for split in splits:
                for note in collected.notes(split):
                    file.write(f"{note['key']}\n".encode())


VOC = Format(encode, finish)
