"""A source: the sorted list of images, and each of them read when it is asked for."""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import NoLabelsError, SampleError, SourceError
from pseudolabel.io.files import Location, read_bytes
from pseudolabel.io.image_list import stem
from pseudolabel.io.images import decode_image
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.names import printable
from pseudolabel.records import BACKGROUND, IGNORE, EncodedImage, LabelMap, Sample
from pseudolabel.sources.cityscapes import list_cityscapes
from pseudolabel.sources.coco_object import list_coco_object
from pseudolabel.sources.coco_stuff import list_coco_stuff
from pseudolabel.sources.context import list_context
from pseudolabel.sources.entry import SPARSE, Entry
from pseudolabel.sources.folder import list_folder
from pseudolabel.sources.label_file import label_by_file, without_labels
from pseudolabel.sources.labels import LABEL_PROBLEMS
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import MaskReader
from pseudolabel.sources.shards import list_shards
from pseudolabel.sources.table import list_table
from pseudolabel.sources.voc import list_voc
from pseudolabel.vocabulary import Vocabulary

_ONLY_IGNORED = (
    "hold only 0 and 255, and 255 stands for ignored pixels, so that they name no class; write 1 for the pixels of the "
    "first class, 2 for the second (values // 255 for one class)"
)
_THREADS = 8  # read masks for their labels; Pillow decodes outside of Python's lock

# A new layout of data is one file with one such function, and one entry here.
KINDS: dict[str, Callable[[SourceConfig, Vocabulary], Listing]] = {
    "voc": list_voc,
    "table": list_table,
    "folder": list_folder,
    "shards": list_shards,
    "context": list_context,
    "coco_object": list_coco_object,
    "coco_stuff": list_coco_stuff,
    "cityscapes": list_cityscapes,
}


@dataclass(frozen=True, eq=False)
class Source:
    """Images with image-level labels, and ground truth for scoring. Threads and processes may share it.

    Attributes:
        entries: sorted by key, keys unique.
        masks: reads an entry's ground-truth mask; None where the source has no masks.
        classes: number of classes without background.
        has_background: whether ground truth may hold background; if not, what has no label is ignored.
        max_pixels: largest width * height that is decoded.
        background_where_unlabelled: whether an image without labels is a sample of background alone, or a bad one.
        left_out: what the source was pointed at and does not take.
    """

    entries: list[Entry]
    masks: MaskReader | None
    classes: int
    has_background: bool
    max_pixels: int
    background_where_unlabelled: bool
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def has_ground_truth(self) -> bool:
        """Whether there are masks; single images may lack one."""
        return self.masks is not None

    def read(self, entry: Entry, view: Callable[[Image.Image], Any] | None = None) -> Sample:
        """Read one image with its labels; it is decoded to check it, and kept as the file's bytes.

        Args:
            entry: one of `entries`.
            view: takes from the decoded image what is needed of it, for `Sample.view`.

        Raises:
            SampleError: the problem found while listing, `unlabelled`, `missing`, or what `decode_image` finds.
        """
        if entry.problem is not None:
            raise copy(entry.problem)
        if not entry.classes and not self.background_where_unlabelled:
            raise SampleError(
                "unlabelled", f"{entry.origin}: no labels; `source.unlabelled` background would take it as background"
            )
        data = read_bytes(Location(entry.path, entry.offset, entry.length, entry.cell))
        decode = partial(decode_image, data, _describe(entry), self.max_pixels)
        image, original = decode()
        content = EncodedImage(image.size[::-1], lambda: decode()[0], original)
        return Sample(entry.key, content, entry.classes, view(image) if view is not None else None)

    def ground_truth(self, entry: Entry, size: tuple[int, int] | None = None) -> LabelMap | None:
        """Read the ground-truth mask of one image; None where there is none.

        Args:
            entry: one of `entries`.
            size: (height, width) of the image, where the caller knows it.

        Raises:
            SampleError: `sparse` where it cannot be read out of its shard, `missing` where the data set names a mask
                that is not there, `size_mismatch`, `unknown_class` where the mask holds values beyond the
                vocabulary, or what its decoder finds.
        """
        if entry.problem is not None and entry.problem.status == SPARSE:  # what is in the mask's place is no file
            raise copy(entry.problem)
        mask = self.masks(entry, self.max_pixels) if self.masks is not None else None
        if mask is None:
            return None
        labels, origin = mask
        if size is not None and labels.shape != tuple(size):
            raise SampleError(
                "size_mismatch", f"{origin}: {labels.shape} where the image is {tuple(size)} (height, width)"
            )
        unknown = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORE + 1)[self.classes + 1 : IGNORE])
        if unknown.size:
            value = int(unknown[0]) + self.classes + 1
            raise SampleError("unknown_class", f"{origin}: label value {value}; the vocabulary ends at {self.classes}")
        if not self.has_background:
            labels = np.where(labels == BACKGROUND, np.uint8(IGNORE), labels)
        return LabelMap(entry.key, labels)

    def lacks_ground_truth(self, entry: Entry) -> str:
        """The message for an image of which `ground_truth` gives None: where its mask was looked for."""
        places = self.masks.places(entry) if self.masks is not None else []
        tried = ": tried " + ", ".join(f"'{printable(place)}'" for place in places) if places else ""
        return f"no ground truth for '{entry.key}'{tried}"


def open_source(config: SourceConfig, vocabulary: Vocabulary) -> Source:
    """List a data set; no image is opened, and masks only where labels are taken from them.

    Raises:
        SourceError: if the list cannot be made, is empty, or holds a key twice.
        NoLabelsError: if there are labels, and none is a class of the vocabulary.
    """
    if config.kind not in KINDS:
        raise SourceError(f"no source kind '{config.kind}'; `source.kind` is one of {', '.join(KINDS)}")
    if not config.path:
        raise SourceError(f"no data given; say where the {config.kind} data are with `source.path`")
    if config.limit < 0:
        raise SourceError(f"`source.limit` {config.limit} is negative; 0 takes all images")
    with _without_collection():
        listing = KINDS[config.kind](config, vocabulary)
        entries, left_out = _sort(listing, config), listing.left_out
        if config.labels in ("none", "masks"):
            entries = [without_labels(entry) for entry in entries]
        elif config.labels != "xml":
            entries, unused = label_by_file(entries, config.labels, vocabulary)
            left_out += unused
    source = Source(
        entries=entries[: config.limit or None],
        masks=listing.masks,
        classes=len(vocabulary),
        has_background=vocabulary.has_background,
        max_pixels=config.max_pixels,
        background_where_unlabelled=config.unlabelled == "background",
        left_out=left_out,
    )
    if config.labels == "masks":
        return _label_by_masks(source, config.path)
    if config.labels == "xml" and listing.no_labels:
        raise NoLabelsError(listing.no_labels)
    if config.labels != "none":
        _check_labels(source.entries, config, vocabulary)
    return source


def _check_labels(entries: list[Entry], config: SourceConfig, vocabulary: Vocabulary) -> None:
    """Make sure that some label is a class, where there are labels: else every image would fail, one by one."""
    if any(entry.classes for entry in entries):
        return
    problems = (entry.problem for entry in entries if entry.problem and entry.problem.status in LABEL_PROBLEMS)
    first = next(problems, None)
    if first is not None:
        raise NoLabelsError(
            f"no image of '{config.path}' has labels that fit vocabulary '{vocabulary.name}' ({vocabulary.listed}); "
            "name the data's own classes with `vocabulary`, take labels from elsewhere with `source.labels` FILE, or "
            f"leave them out with `source.labels` none. The first: {first}"
        )


def _label_by_masks(source: Source, path: str) -> Source:
    """Take the classes that the ground truth holds for labels."""
    if not source.has_ground_truth:
        raise SourceError(f"'{path}' has no masks to take labels from; name their folder with `source.masks`")

    def label(entry: Entry) -> tuple[Entry, bool | None]:
        """The labelled entry, and whether its mask holds no class but ignored pixels; None where it was not read."""
        if entry.problem is not None:
            return entry, None
        try:
            truth = source.ground_truth(entry)
        except SampleError as error:
            return replace(entry, problem=SampleError(error.status, f"labels: {error}")), None
        if truth is None:
            return replace(entry, problem=SampleError("missing", f"labels: {source.lacks_ground_truth(entry)}")), None
        classes = (int(value) for value in np.unique(truth.labels) if value not in (BACKGROUND, IGNORE))
        return replace(entry, classes=tuple(classes)), _names_no_class(truth.labels)

    with ThreadPoolExecutor(_THREADS) as pool:
        labelled = list(pool.map(label, source.entries))
    seen = [names_none for _, names_none in labelled if names_none is not None]
    if seen and all(seen):
        raise SourceError(f"no labels can be taken from the masks: all of them {_ONLY_IGNORED}")
    problems = [entry.problem for entry, _ in labelled if entry.problem is not None]
    if not seen and len({problem.status for problem in problems}) == 1 and str(problems[0]).startswith("labels: "):
        raise SourceError(
            f"no labels can be taken from the masks of '{path}'; the first of {len(problems)}: {problems[0]}"
        )
    return replace(source, entries=[entry for entry, _ in labelled])


def _names_no_class(labels: np.ndarray) -> bool:
    """Whether some of a mask is ignored, and the rest is background."""
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORE + 1))
    return values[-1] == IGNORE and {*values.tolist()} <= {BACKGROUND, IGNORE}


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python's collector would look through a growing million of entries again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _sort(listing: Listing, config: SourceConfig) -> list[Entry]:
    if not listing.entries:
        found = f": {listing.left_out}" if listing.left_out.total else ""
        raise SourceError(
            f"no images in '{config.path}' (kind {config.kind}, split {config.split}){found}; check `source.path`"
        )
    entries = sorted(listing.entries, key=attrgetter("key"))
    shared = [(before, entry) for before, entry in pairwise(entries) if before.key == entry.key]
    if shared:
        first, second = shared[0]
        further = len({entry.key for _, entry in shared}) - 1
        others = f", and {further} more keys do so" if further else ""
        if any("." in stem(entry.image_name).rpartition("/")[2] for entry in shared[0]):
            others += " (a key holds no dots, which become _)"
        raise SourceError(
            f"key '{first.key}' belongs to two images: {_describe(first)} and {_describe(second)}{others}; "
            f"{_hint_for_keys(config, first.path == second.path)}"
        )
    return entries


def _hint_for_keys(config: SourceConfig, one_shard: bool) -> str:
    if config.kind == "shards" and one_shard:
        return "rename the members of one of them, or remove them"
    if config.kind == "shards" and not config.key_prefix:
        return "if they are different images, tell them apart by their shards with `source.key_prefix` shard"
    if config.kind == "table":
        return "give the rows keys of their own in a column named key, or remove one of them"
    if config.kind in ("voc", "context"):
        return "rename or remove one of them: the image, its line in the list, its mask and its annotation"
    if config.kind == "folder":
        return (
            "where one is the other's mask, move the masks into a folder of their own and name it with `source.masks`; "
            "else rename or remove one of them"
        )
    return "rename or remove one of them"


def _describe(entry: Entry) -> str:
    path = printable(entry.path)
    return path if path == entry.origin else f"{path} ({entry.origin})"
