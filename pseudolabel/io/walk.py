"""Every image below a folder, and what else lies there, counted."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pseudolabel.errors import PathError
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.image_formats import HEAD, HEIF_SUFFIXES, by_content, by_suffix, is_heif, remedy
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.ownership import MANIFEST
from pseudolabel.runtime.batching import batched

_OF_THE_SYSTEM = ("__MACOSX", "@eaDir")  # previews and the like that Macs and network drives put beside images
_THREADS, _TOGETHER = 16, 4096  # look into files; behind a URL waiting for them is all the time there is
_SHOWN = 12  # suffixes that are told one by one

HIDDEN = "hidden"
BROKEN_LINK = "broken link"
LISTED_ALREADY = "link to a folder that is listed already"
ABOVE = "link to a folder above"
LINK = "link"
SPECIAL = "pipe, socket or device"
UNREADABLE_FOLDER = "folder that cannot be read"
UNREADABLE = "that cannot be read"

_File = tuple[str, str]  # its path below the root, and why it is left out, empty where that is not known yet


def find_images(root: str, outside: str = "") -> tuple[list[str], LeftOut]:
    """List the images below a folder, and count all other files by the reason why they are left out.

    What has an image's suffix is one, whatever its content; what has none of the well-known suffixes is one if it
    begins like one. Hidden files and folders and what systems put beside images are left out. Linked folders are
    followed, each folder is listed once.

    Args:
        root: local path or fsspec URL of a folder.
        outside: a folder whose files are no images of the root's, such as masks that lie inside.

    Returns:
        Sorted paths relative to the root, and what else there is. A path may hold bytes that are no UTF-8; `printable`
        writes it as text.

    Raises:
        PathError: if the folder cannot be listed.
    """
    fs, base = open_filesystem(root)
    apart = open_filesystem(outside)[1] if outside else ""
    files = _local_files(base, apart) if isinstance(fs, LocalFileSystem) else _remote_files(fs, base, apart)
    images: list[str] = []
    unknown: list[str] = []
    reasons: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    try:
        for name, reason in files:
            is_image = by_suffix(_suffix(name)) if not reason else False
            if is_image is None:
                unknown.append(name)
            elif is_image:
                images.append(name)
            elif reason:
                reasons[reason] += 1
            else:
                suffixes[_suffix(name)] += 1
    except OSError as error:
        raise PathError(f"folder '{root}' cannot be listed: {error}") from error
    for name, head in zip(unknown, _heads(fs, (f"{base}/{name}" for name in unknown)), strict=True):
        if head is None:
            reasons[UNREADABLE] += 1
        elif by_content(head):
            images.append(name)
        else:
            suffixes[HEIF_SUFFIXES[0] if is_heif(head) else _suffix(name)] += 1
    return sorted(images), LeftOut(reasons + _told(suffixes))


def _local_files(root: str, outside: str) -> Iterator[_File]:
    """All files below a local folder; linked folders come after the others, so that a link never takes their place."""
    top = os.path.realpath(root)
    apart = os.path.realpath(outside) if outside else ""
    seen: set[str] = set()
    folders = [("", top, "")]  # prefix of its files' names, real path, why its files are left out
    links: deque[tuple[str, str, str]] = deque()
    while folders or links:
        prefix, place, reason = folders.pop() if folders else links.popleft()
        if place in seen:
            yield prefix[:-1], LISTED_ALREADY
            continue
        seen.add(place)
        if place == apart:
            reason = f"in '{os.path.basename(apart)}'"
        try:
            children = sorted(os.scandir(place), key=lambda child: child.name)
        except OSError:
            if not prefix:
                raise
            yield prefix[:-1], UNREADABLE_FOLDER
            continue
        for child in children:
            if child.name.startswith(MANIFEST):
                continue  # our own notes are no input
            name, why = prefix + child.name, reason or why_left_out(child.name)
            kind = _kind(child)
            if kind == "folder":
                folders.append((f"{name}/", f"{place.rstrip('/')}/{child.name}", why))
            elif kind == "linked folder" and not why:
                target = os.path.realpath(child.path)
                if top.startswith(f"{target.rstrip('/')}/") and top != target:
                    yield name, ABOVE
                else:
                    links.append((f"{name}/", target, why))
            else:
                yield name, why or ("" if kind == "file" else kind)


def _kind(child: "os.DirEntry[str]") -> str:
    """`file`, `folder`, `linked folder`, or why it is none of them."""
    try:
        if child.is_symlink():
            child.stat()  # raises where there is nothing behind it
            if child.is_dir():
                return "linked folder"
        if child.is_dir():
            return "folder"
        return "file" if child.is_file() else SPECIAL
    except OSError:
        return BROKEN_LINK


def _remote_files(fs: fsspec.AbstractFileSystem, root: str, outside: str) -> Iterator[_File]:
    apart = f"{outside.rstrip('/')}/" if outside else ""
    for path, info in fs.find(root, detail=True).items():
        name = path[len(root) :].lstrip("/")
        if name.rpartition("/")[2].startswith(MANIFEST):
            continue
        why = f"in '{apart.split('/')[-2]}'" if apart and path.startswith(apart) else ""
        why = why or next(filter(None, map(why_left_out, name.split("/"))), "")
        yield name, why or ("" if info.get("type", "file") == "file" else LINK)


def why_left_out(name: str) -> str:
    """Why a file or folder of this name is left out."""
    if name in _OF_THE_SYSTEM:
        return f"in {name}"
    return HIDDEN if name.startswith(".") else ""


def _suffix(name: str) -> str:
    """The suffix in small letters, with its dot; empty where there is none."""
    _, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix}".lower() if dot else ""


def _heads(fs: fsspec.AbstractFileSystem, paths: Iterable[str]) -> Iterator[bytes | None]:
    """The first bytes of files, None for one that cannot be read."""
    if isinstance(fs, LocalFileSystem):
        yield from map(partial(_head, fs), paths)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batched(paths, _TOGETHER):
            yield from pool.map(partial(_head, fs), batch)


def _head(fs: fsspec.AbstractFileSystem, path: str) -> bytes | None:
    try:
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb", buffering=0) as file:
                return file.read(HEAD)
        return fs.cat_file(path, start=0, end=HEAD)
    except OSError:
        return None


def _told(suffixes: Counter[str]) -> Counter[str]:
    """Reasons from suffixes: the commonest ones by name, with a remedy where there is one, the others together."""
    told: Counter[str] = Counter()
    for suffix, count in suffixes.most_common():
        if not suffix:
            reason = "without a suffix"
        elif remedy(suffix):
            reason = f"{suffix} ({remedy(suffix)})"
        elif len(told) < _SHOWN and re.fullmatch(r"\.[a-z0-9_+~-]{1,12}", suffix):
            reason = suffix
        else:
            reason = "of other kinds"
        told[reason] += count
    return told
