"""WebDataset shards: tars whose members of one basename are one sample."""

import glob
import json
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pseudolabel.config import SourceConfig
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import Entry, SourceError, key_of
from pseudolabel.sources.files import Location, is_folder, join
from pseudolabel.sources.images import IMAGE_SUFFIXES
from pseudolabel.sources.labels import LabelReader, Labels
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import choose_masks
from pseudolabel.vocabulary import Vocabulary

_THREADS = 8
_BLOCK = 512
_MEMBER_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's: the basename up to its first dot, the rest
_LABEL_SUFFIXES = ("json", "cls", "txt")  # in the order in which they are believed
_JSON_FIELDS = ("names", "labels", "classes")  # names first: in shards of ours `classes` need not be 0-based


@dataclass(frozen=True)
class _Member:
    """A member's name, its place in the tar, and its bytes where it holds labels."""

    name: str
    location: Location
    content: bytes


class _Listed(NamedTuple):
    entry: Entry
    mask: Location | None


def list_shards(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the samples of WebDataset tars by reading each tar's headers once; images are sought later.

    `config.path` is a folder of `.tar` files, a pattern such as `data/train-{000..127}.tar` or `data/*.tar`, or a tar.
    Labels are in `.json` (a list under `names`, `labels` or `classes`), `.cls` (an index or a name) or `.txt` (names
    separated by commas). A `.png` beside an image of another format is its ground-truth mask.

    Raises:
        SourceError: if there is no shard, or one is damaged, cut off or compressed.
    """
    paths = match_shards(config.path)
    if not paths:
        raise SourceError(f"no shards match '{config.path}'; --source.path needs a folder of .tar files or a pattern")
    with ThreadPoolExecutor(_THREADS) as pool:  # for remote shards, where headers are waited for
        shards = pool.map(partial(_list_shard, reader=LabelReader(vocabulary)), paths)
        listed = [sample for shard in shards for sample in shard]
    masks = {entry.key: mask for entry, mask in listed if mask is not None}
    return Listing([entry for entry, _ in listed], choose_masks(masks, config.masks))


def match_shards(pattern: str) -> list[str]:
    """Paths of tars in the order of their names.

    Args:
        pattern: a folder of `.tar` files, a tar, or a pattern with `{000..127}`, `{a,b}`, `*`, `?` or `[...]`; a local
            path or any fsspec URL. A plain name is given back, be there such a file or not.
    """
    return list(dict.fromkeys(path for name in expand_braces(pattern) for path in _glob(name)))


def expand_braces(pattern: str) -> list[str]:
    """Expand `{000..127}` (zero-padded as written) and `{a,b}`, as shells and WebDataset do."""
    for braces in re.finditer(r"\{([^{}]*)\}", pattern):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
        if numbers:
            first, last = int(numbers[1]), int(numbers[2])
            choices = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
        elif "," in braces[1]:
            choices = braces[1].split(",")
        else:
            continue
        return [
            path
            for choice in choices
            for path in expand_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])
        ]
    return [pattern]


def _glob(path: str) -> list[str]:
    is_url = "://" in path
    if is_folder(path):
        path = join(path if is_url else glob.escape(path), "*.tar")
    if not re.search(r"[*?\[]", path):
        return [path]
    if not is_url:
        return sorted(glob.glob(path))  # fsspec's would make the paths absolute
    fs, name = open_filesystem(path)
    return [fs.unstrip_protocol(match) for match in sorted(fs.glob(name))]


def _list_shard(path: str, reader: LabelReader) -> list[_Listed]:
    samples: dict[str, dict[str, _Member]] = {}
    for member in _read_members(path):
        name = _MEMBER_NAME.fullmatch(member.name)
        if name is None:
            continue
        stem, suffix = name[1], name[2].lower()
        sample = samples.setdefault(stem, {})
        if suffix in sample:
            raise SourceError(f"'{path}' holds '{member.name}' twice; write the shard anew")
        sample[suffix] = member
    listed = (_list_sample(path, stem, sample, reader) for stem, sample in samples.items())
    return [sample for sample in listed if sample is not None]


def _read_members(path: str) -> list[_Member]:
    """All regular members of a tar, which must be whole: Python's tarfile takes a damaged header for the end."""
    fs, name = open_filesystem(path)
    members = []
    try:
        with fs.open(name, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.isreg():
                    continue
                holds_labels = info.name.lower().endswith(_LABEL_SUFFIXES)
                extracted = tar.extractfile(info) if holds_labels else None
                content = extracted.read() if extracted else b""
                members.append(_Member(info.name, Location(path, info.offset_data, info.size), content))
            file.seek(tar.offset)
            whole = file.read(_BLOCK) == bytes(_BLOCK)
    except FileNotFoundError as error:
        raise SourceError(f"no shard '{path}'; mend --source.path") from error
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"shard '{path}' is not a plain tar ({error}); unpack it if it is compressed") from error
    if not whole:
        raise SourceError(f"shard '{path}' is damaged or cut off at byte {tar.offset}; copy or write it anew")
    return members


def _list_sample(path: str, stem: str, sample: dict[str, _Member], reader: LabelReader) -> _Listed | None:
    images = [suffix for suffix in sample if f".{suffix}" in IMAGE_SUFFIXES]
    labels = [suffix for suffix in _LABEL_SUFFIXES if suffix in sample]
    mask = None
    if len(images) > 1 and "png" in images:
        images.remove("png")
        mask = sample["png"].location
    if len(images) > 1:
        raise SourceError(f"'{path}' holds two images of '{stem}': {' and '.join(images)}; keep one of them")
    if not images and not labels:
        return None
    key = key_of(f"{stem}.{labels[0] if labels else images[0]}")
    classes, problem = _read_labels(path, sample[labels[0]], labels[0], reader) if labels else ((), None)
    if not images:
        origin = f"{path}: {sample[labels[0]].name}"
        return _Listed(
            Entry(key, path, classes, origin, ("missing", f"{origin} has labels but no image beside it")), None
        )
    image = sample[images[0]]
    _, offset, length = image.location
    return _Listed(Entry(key, path, classes, f"{path}: {image.name}", problem, offset, length), mask)


def _read_labels(path: str, member: _Member, suffix: str, reader: LabelReader) -> Labels:
    origin = f"{path}: {member.name}"
    try:
        text = member.content.decode("utf-8-sig").strip()
        if suffix != "json":
            return reader.read([text] if suffix == "cls" and text else text, origin)
        fields = json.loads(text)
    except ValueError as error:  # of the text's encoding or of the JSON
        return (), ("unreadable", f"{origin}: {error}")
    found = [field for field in _JSON_FIELDS if isinstance(fields, dict) and field in fields]
    if not found:
        return (), (
            "unreadable",
            f"{origin}: no labels; an object with a list under {', '.join(_JSON_FIELDS)} is needed",
        )
    return reader.read(fields[found[0]], origin)
