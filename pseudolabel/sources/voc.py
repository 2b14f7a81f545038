"""PASCAL VOC's layout: JPEGImages, ImageSets/Segmentation, Annotations, SegmentationClass."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pseudolabel.config import SourceConfig
from pseudolabel.sources.entry import BadSample, Entry, SourceError, key_of
from pseudolabel.sources.files import Location, is_folder, join, read_bytes
from pseudolabel.sources.labels import LabelReader, Labels
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import open_mask_folder
from pseudolabel.sources.split import read_split
from pseudolabel.vocabulary import Vocabulary

_THREADS = 8  # annotations are one small file per image; on remote storage waiting for them is all the time there is

LabelsOf = Callable[[str], Labels]


def list_voc(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the images of `ImageSets/Segmentation/<split>.txt`, with labels from annotations.

    Every object of an annotation counts, difficult and truncated ones too. Ground truth comes from `config.masks`, or
    from SegmentationClass where that folder exists.

    Raises:
        SourceError: if the layout, the split, or the labels as a whole are not there.
    """
    root = config.path.rstrip("/") or "/"
    images, masks = join(root, "JPEGImages"), config.masks or join(root, "SegmentationClass")
    if not is_folder(images):
        raise SourceError(
            f"no folder '{images}'; --source.path needs the folder that holds JPEGImages, such as VOCdevkit/VOC2012"
        )
    has_masks = bool(config.masks) or is_folder(masks)
    split = read_split(join(root, "ImageSets/Segmentation"), config.split)
    labels: list[Labels] = [((), None)] * len(split)
    if config.labels == "xml":  # others are taken by whoever opens the source
        labels_of = _labels_from_xml(join(root, "Annotations"), LabelReader(vocabulary))
        with ThreadPoolExecutor(_THREADS) as pool:
            labels = list(pool.map(labels_of, split))
    entries = [
        Entry(key_of(f"{name}.jpg"), join(images, f"{name}.jpg"), classes, origin, problem)
        for (name, origin), (classes, problem) in zip(split.items(), labels, strict=True)
    ]
    return Listing(entries, open_mask_folder(masks, images) if has_masks else None)


def _labels_from_xml(folder: str, reader: LabelReader) -> LabelsOf:
    if not is_folder(folder):
        raise SourceError(
            f"no folder '{folder}'; take labels from elsewhere: --source.labels masks, or the path of a label file; or "
            "leave them out: --source.labels none"
        )

    def labels_of(name: str) -> Labels:
        path = join(folder, f"{name}.xml")
        try:
            annotation = ElementTree.fromstring(read_bytes(Location(path)))
        except BadSample as error:
            return (), (error.status, f"labels: {error}")
        except ElementTree.ParseError as error:
            return (), ("unreadable", f"labels: '{path}' is not XML: {error}")
        names = [(entry.findtext("name") or "").strip() for entry in annotation.findall("object")]
        return reader.read(names, path)

    return labels_of
