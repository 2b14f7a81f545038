"""Samples of a WebDataset tar: which member is the image, which the mask, which the labels."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pseudolabel.errors import SampleError
from pseudolabel.io.files import Location
from pseudolabel.io.image_formats import by_content, by_suffix, hint_of
from pseudolabel.io.json_text import decode_json
from pseudolabel.io.names import is_printable, printable
from pseudolabel.io.tar import split_name
from pseudolabel.io.walk import why_left_out
from pseudolabel.sources.entry import SPARSE, TWO_IMAGES, UNDECODABLE_NAME, Entry, key_of
from pseudolabel.sources.label_file import LABEL_FIELDS, find_label_field
from pseudolabel.sources.labels import LabelReader, Labels
from pseudolabel.sources.shard_members import LABEL_SUFFIXES, Member

_IMAGE_WORDS = {"image", "img", "input", "inputs", "rgb", "photo"}
_MASK_WORDS = {
    "mask",
    "masks",
    "seg",
    "segm",
    "segmentation",
    "label",
    "labels",
    "gt",
    "target",
    "annotation",
    "output",
}
_CAPTION_WORDS = {"caption", "captions", "text", "prompt", "prompts", "alt", "url", "meta", "metadata"}
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_UNOPENED = (".pkl", ".pickle", ".pyd", ".pth", ".pt", ".npy", ".npz")

Sample = dict[str, Member]
"""Members by their suffixes in small letters, such as `jpg` or `seg.png`."""


class ListedSample(NamedTuple):
    """A sample's entry, and where its mask is."""

    entry: Entry
    mask: Location | None


def list_samples(
    path: str, members: Iterable[Member], prefix: str, reader: LabelReader
) -> tuple[list[ListedSample], Counter[str]]:
    """Make samples of a tar's members.

    The image is the member with an image's suffix, also a compound one (`input.jpg`), else the one that begins
    like an image. Of several, the one with the plain suffix or with a word such as image counts. A `.png` beside an
    image of another format, or one with a word such as seg or mask, is the ground truth. Members such as `v1.1.jpg`,
    `v1.1.txt`, `v1.2.jpg` and `v1.2.txt`, of which WebDataset makes one sample, are two of the keys `v1_1` and `v1_2`.
    What else has several images, or labels without an image, is listed with its problem.

    Args:
        path: of the tar.
        members: of the tar.
        prefix: what keys begin with; may be empty.
        reader: of labels.

    Returns:
        The samples, and how many members are left out by reason.
    """
    left_out: Counter[str] = Counter()
    samples: dict[str, Sample] = {}
    repeated: dict[str, Member] = {}
    for member in members:
        name = split_name(member.name)
        reason = next(filter(None, map(why_left_out, _parts(member.name))), "")
        if reason or name is None:
            left_out[reason or "without a suffix"] += 1
            continue
        stem, suffix = name
        if suffix in samples.setdefault(stem, {}):
            repeated[stem] = member
        samples[stem][suffix] = member
    listed = []
    whole = [(stem, sample) for stem, sample in samples.items() if stem in repeated]
    parted = (part for stem, sample in samples.items() if stem not in repeated for part in _parted(stem, sample))
    for stem, sample in (*whole, *parted):
        composed = _Composed(path, sample, repeated.get(stem))
        if composed.is_sample:
            listed.append(composed.list_as(key_of(f"{prefix}{printable(stem)}.x"), reader))
            left_out.update(composed.passed_over)
        else:
            left_out.update(_reason(member) for member in sample.values())
    return listed, left_out


def _parted(stem: str, sample: Sample) -> Iterator[tuple[str, Sample]]:
    """The sample, or each of several images of dotted names with the labels of the same name."""
    parts: dict[str, Sample] = {}
    for suffix, member in sample.items():
        name, _, last = suffix.rpartition(".")
        parts.setdefault(name, {})[last] = member
    is_each_one = all(name and _images(part) and _labels(part) for name, part in parts.items())
    if len(parts) > 1 and is_each_one:
        yield from ((f"{stem}.{name}", part) for name, part in parts.items())
    else:
        yield stem, sample


class _Composed:
    """What is what among the members of one sample."""

    def __init__(self, path: str, sample: Sample, repeated: Member | None) -> None:
        self._path, self._sample, self._repeated = path, sample, repeated
        images = _images(sample)
        masks = [suffix for suffix in images if _has_word(suffix, _MASK_WORDS) and suffix.endswith(_MASK_SUFFIXES)]
        images = [suffix for suffix in images if suffix not in masks]
        if not masks and len(images) > 1 and "png" in images:
            masks = ["png"]
            images.remove("png")
        self._images = _preferred(images)
        self._labels = _labels(sample)
        self._masks = masks
        self.passed_over = Counter({"further image of a sample": len(images) - 1} if len(self._images) == 1 else {})
        if len(masks) > 1:
            self.passed_over["one of several masks of a sample"] = len(masks)

    @property
    def is_sample(self) -> bool:
        return bool(self._images or self._masks or self._labels)

    def list_as(self, key: str, reader: LabelReader) -> ListedSample:
        shown = self._images or self._labels or self._masks
        member = self._sample[shown[0]]
        origin = printable(f"{self._path}: {member.name}")
        classes, problem = self._read_labels(reader)
        problem = self._problem_of_image(origin, member) or problem
        if not self._images:
            return ListedSample(Entry(key, self._path, classes, origin, problem), None)
        mask = self._sample[self._masks[0]].location if len(self._masks) == 1 else None
        path, offset, length, _ = member.location
        return ListedSample(Entry(key, path, classes, origin, problem, offset, length), mask)

    def _problem_of_image(self, origin: str, member: Member) -> SampleError | None:
        if not is_printable(member.name):
            return SampleError(UNDECODABLE_NAME, f"{origin}: the name of the member is no UTF-8; rename it")
        if self._repeated is not None:
            message = f"'{printable(self._path)}' holds '{self._repeated.name}' twice; keep one of them"
            return SampleError(TWO_IMAGES, message)
        if len(self._images) > 1:
            names = " and ".join(f"'{self._sample[suffix].name}'" for suffix in self._images)
            return SampleError(
                TWO_IMAGES,
                f"'{printable(self._path)}' holds two images of one sample: {names}; keep one of them, or where they "
                "are samples of their own, rename them: a WebDataset key ends at the name's first dot",
            )
        sparse = [self._sample[suffix] for suffix in (*self._images, *self._masks) if self._sample[suffix].sparse]
        if sparse:
            return SampleError(
                SPARSE,
                f"{printable(f'{self._path}: {sparse[0].name}')}: the tar stores this member as a sparse file, whose "
                "bytes cannot be sought by their place; write the tar again without --sparse (-S)",
            )
        if not self._images:
            others = sorted({other.suffix for other in self._sample.values()} - {*LABEL_SUFFIXES})
            found = ", ".join(f"{suffix} ({hint_of(suffix)})" if hint_of(suffix) else suffix for suffix in others)
            what = "labels" if self._labels else "a mask"
            there_is = f"; there is {found}" if found else ""
            return SampleError("missing", f"{origin} has {what} but no image beside it{there_is}")
        return None

    def _read_labels(self, reader: LabelReader) -> Labels:
        """The labels of the first member that has any; JSON without a field of labels is no such member."""
        problem: SampleError | None = None
        for suffix in self._labels:
            if problem is not None and not suffix.endswith("cls"):  # beside JSON without labels, text is a caption
                continue
            member = self._sample[suffix]
            origin = printable(f"{self._path}: {member.name}")
            try:
                text = member.content.decode("utf-8-sig").strip()
                labels = _labels_in_json(text) if suffix.endswith("json") else text
            except (ValueError, RecursionError) as error:  # of the text's encoding or of the JSON
                return (), SampleError("unreadable", f"{origin}: {error}")
            if labels is not _NO_LABELS:
                return reader.read([labels] if suffix.endswith("cls") and labels else labels, origin)
            problem = SampleError(
                "unreadable",
                f"{origin}: no labels; an object with a list under {', '.join(LABEL_FIELDS[:3])} is needed, or "
                "`source.labels` none, or the path of a label file",
            )
        unopened = [member for member in self._sample.values() if member.suffix in _UNOPENED]
        if problem is None and not self._labels and unopened:
            problem = SampleError(
                "unreadable",
                f"{printable(f'{self._path}: {unopened[0].name}')}: labels in {unopened[0].suffix} are not read, since "
                "pickles can run code; write them as .json, .cls or .txt, or set `source.labels` none",
            )
        return (), problem


_NO_LABELS = object()


def _labels_in_json(text: str) -> object:
    fields = decode_json(text)
    field = find_label_field(fields) if isinstance(fields, dict) else None
    return _NO_LABELS if field is None else fields[field]


def _images(sample: Sample) -> list[str]:
    """Suffixes of the members that are images by suffix, else of those that are by content."""
    by_name = [suffix for suffix, member in sample.items() if by_suffix(member.suffix)]
    return by_name or [suffix for suffix, member in sample.items() if _begins_like_image(member)]


def _begins_like_image(member: Member) -> bool:
    return member.suffix not in LABEL_SUFFIXES and bool(member.content) and by_content(member.content)


def _preferred(images: list[str]) -> list[str]:
    """The one that is the image where there are several; all of them where none is."""
    plain = [suffix for suffix in images if "." not in suffix]
    named = [suffix for suffix in images if _has_word(suffix, _IMAGE_WORDS)]
    return next((found for found in (plain, named) if len(found) == 1), plain if len(plain) > 1 else images)


def _labels(sample: Sample) -> list[str]:
    """Suffixes of the members that may hold labels, in the order in which they are believed."""
    plain = [suffix[1:] for suffix in LABEL_SUFFIXES if suffix[1:] in sample]
    compound = [
        suffix
        for ending in LABEL_SUFFIXES
        for suffix in sample
        if suffix.endswith(ending) and not _has_word(suffix, _CAPTION_WORDS)
    ]
    return plain or compound


def _has_word(suffix: str, words: set[str]) -> bool:
    return not words.isdisjoint(re.split(r"[._-]", suffix)[:-1])


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in (".", "..")]


def _reason(member: Member) -> str:
    help_ = hint_of(member.suffix)
    return f"{member.suffix} ({help_})" if help_ else printable(member.suffix)
