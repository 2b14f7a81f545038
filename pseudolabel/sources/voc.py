"""PASCAL VOC's layout: JPEGImages, ImageSets/Segmentation, Annotations, SegmentationClass."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import Location, is_folder, join, read_bytes
from pseudolabel.io.image_list import ListedImage
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.labels import LabelReader, Labels
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import ListedMasks, MaskFiles, find_mask_folder, open_mask_folder
from pseudolabel.sources.split import entries_of, read_split
from pseudolabel.vocabulary import Vocabulary

_THREADS = 8  # annotations are one small file per image; on remote storage waiting for them is all the time there is
_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)""")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}  # what is written under them

LabelsOf = Callable[[str], Labels]


def list_voc(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the images of `ImageSets/Segmentation/<split>.txt`, with labels from annotations.

    Every object of an annotation counts, difficult and truncated ones too. Ground truth comes from `config.masks`, or
    from SegmentationClass where that folder exists.

    Raises:
        SourceError: if the layout, the split, or the labels as a whole are not there.
    """
    root = config.path.rstrip("/") or "/"
    images = join(root, "JPEGImages")
    if not is_folder(images):
        raise SourceError(
            f"no folder '{images}'; `source.path` needs the folder that holds JPEGImages, such as VOCdevkit/VOC2012"
        )
    split = read_split(join(root, "ImageSets/Segmentation"), config.split, images)
    entries = list(entries_of(split, images))
    if config.labels == "xml":  # `open_source` reads other labels
        labels_of = _labels_from_xml(join(root, "Annotations"), LabelReader(vocabulary))
        with ThreadPoolExecutor(_THREADS) as pool:
            labels = pool.map(labels_of, split)
            entries = [
                replace(entry, classes=classes, problem=problem)
                for entry, (classes, problem) in zip(entries, labels, strict=True)
            ]
    return Listing(entries, _open_masks(config.masks, root, images, entries, split.values()))


def _open_masks(
    folder: str, root: str, images: str, entries: list[Entry], listed: Iterable[ListedImage]
) -> MaskFiles | None:
    """The masks of the folder that the user set, else those that the list names, else those of SegmentationClass."""
    if folder:
        return open_mask_folder(folder, images, entries)
    usual = join(root, "SegmentationClass")
    masks = find_mask_folder(usual, images, entries) if is_folder(usual) else None
    places: dict[str, str | None] = {"": usual if masks is not None else None}
    named: dict[str, Location] = {}
    for entry, image in zip(entries, listed, strict=True):
        column, _, name = image.mask.replace("\\", "/").rpartition("/")
        if column not in places:
            places[column] = _place_of(root, column)
        place = places[column]
        if name and place is not None:
            named[entry.key] = Location(join(place, name))
    return MaskFiles(ListedMasks(named, masks)) if named or masks is not None else None


def _place_of(root: str, folder: str) -> str | None:
    """The folder of a list's column of masks: absolute, or below the root with any prefix of the path removed."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    below = [join(root, "/".join(parts[start:])) for start in range(len(parts))]
    return next((place for place in (*below, folder) if place and is_folder(place)), None)


def _labels_from_xml(folder: str, reader: LabelReader) -> LabelsOf:
    if not is_folder(folder):
        raise SourceError(
            f"no folder '{folder}'; take labels from elsewhere: `source.labels` masks, or the path of a label file; or "
            "leave them out: `source.labels` none"
        )

    def labels_of(name: str) -> Labels:
        path = join(folder, f"{name}.xml")
        try:
            annotation = parse_xml(read_bytes(Location(path)))
        except SampleError as error:
            return (), SampleError(error.status, f"labels: {error}")
        except ElementTree.ParseError as error:
            return (), SampleError("unreadable", f"labels: '{path}' is not XML: {error}")
        names = [(entry.findtext("name") or "").strip() for entry in annotation.findall("object")]
        return reader.read(names, path)

    return labels_of


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse an XML file in the encoding it declares, or in the one it really has.

    The parser knows few encodings, and tools that draw boxes write paths in their system's own bytes. What is neither
    of the declared encoding nor UTF-8 is read as Latin-1, which leaves the ASCII in it as it is.

    Raises:
        ParseError: if it is not XML in any of them.
    """
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        failure = error
    declared = _DECLARED.search(data[:200])
    encodings = [_WIDER.get(name := declared[1].decode().lower(), name)] if declared else []
    for encoding in (*encodings, "utf-8-sig", "latin-1"):
        try:
            return ElementTree.fromstring(data.decode(encoding))
        except (ElementTree.ParseError, LookupError, ValueError):
            continue
    raise failure if isinstance(failure, ElementTree.ParseError) else ElementTree.ParseError(str(failure))
