"""Pascal Context: VOC 2010's images with all of their pixels labelled (Mottaghi et al. 2014), in 59 classes."""

import io
import re

import numpy as np
import scipy.io

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import find_folder, is_file, is_folder, join, read_text
from pseudolabel.io.images import check_size, decoding
from pseudolabel.records import BACKGROUND
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import MaskFiles, MaskFolder, labels_by_value, open_mask_folder
from pseudolabel.sources.split import entries_of, read_split
from pseudolabel.vocabulary import Vocabulary

_HINT_IMAGES = (
    "`source.path` needs VOC 2010's folder: unpack VOCtrainval_03-May-2010.tar from "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ and name VOCdevkit/VOC2010"
)
_HINT_MASKS = (
    "download trainval.tar.gz and labels.txt from https://cs.stanford.edu/~roozbeh/pascal-context/ and unpack them "
    "there, or lay MMSegmentation's SegmentationClassContext there"
)


def list_context(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List a split of Pascal Context; the images come without labels.

    The split is MMSegmentation's `ImageSets/SegmentationContext/<split>.txt`, or else VOC's
    `ImageSets/Main/<split>.txt`, which lists the same images (train 4,998, val 5,105). Ground truth comes from
    `config.masks`, or `trainval/*.mat` with `labels.txt`, or MMSegmentation's `SegmentationClassContext/*.png`, whose
    values are the indices of vocabulary `context`. Classes that the vocabulary does not have are background.

    Raises:
        SourceError: if images, split or ground truth are missing, or the vocabulary has other classes.
    """
    root = config.path.rstrip("/") or "/"
    images = find_folder(root, ["JPEGImages"], _HINT_IMAGES)
    lists = join(root, "ImageSets/SegmentationContext")
    if not is_file(join(lists, f"{config.split}.txt")):
        lists = join(root, "ImageSets/Main")
    entries = list(entries_of(read_split(lists, config.split, images), images))
    return Listing(entries, _open_masks(config.masks, root, images, entries, vocabulary))


def _open_masks(folder: str, root: str, images: str, entries: list[Entry], vocabulary: Vocabulary) -> MaskFiles:
    matlab, converted = join(root, "trainval"), join(root, "SegmentationClassContext")
    if folder or (not is_folder(matlab) and is_folder(converted)):
        return open_mask_folder(folder or converted, images, entries)
    if not is_folder(matlab):
        raise SourceError(f"no folder '{matlab}'; {_HINT_MASKS}")
    names = _read_names(join(root, "labels.txt"))
    labels = {BACKGROUND: BACKGROUND, **labels_by_value(names, vocabulary, "context")}
    return MaskFiles(MaskFolder(matlab, images, ".mat"), read_label_map, labels)


def _read_names(path: str) -> dict[int, str]:
    """Name by value from lines such as `2: aeroplane`."""
    names = {}
    for line in read_text(path, _HINT_MASKS).splitlines():
        match = re.fullmatch(r"\s*(\d+)\s*:\s*(.+?)\s*", line)
        if match:
            names[int(match[1])] = match[2]
    return names


def read_label_map(data: bytes, origin: str, max_pixels: int | None = None) -> np.ndarray:
    """Decode one of Pascal Context's `.mat` files.

    Args:
        data: the whole file.
        origin: the file's name for messages.
        max_pixels: largest width * height that is decoded; None sets no limit.

    Returns:
        Its `LabelMap`, uint16 (H, W), values 1..459.

    Raises:
        SampleError: `too_large`, `truncated`, or `unreadable`.
    """
    with decoding(origin):
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(io.BytesIO(data))}
        height, width = shapes.get("LabelMap", (0, 0))
        check_size(width, height, origin, max_pixels)
        values = scipy.io.loadmat(io.BytesIO(data), variable_names=["LabelMap"]).get("LabelMap")
    if values is None or values.size == 0 or values.dtype.kind != "u":
        raise SampleError("unreadable", f"{origin}: no LabelMap of whole numbers as in Pascal Context's trainval")
    return values
