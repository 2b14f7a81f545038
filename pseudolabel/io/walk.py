"""Find every image below a folder, and count the other files."""

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
from pseudolabel.io.image_formats import HEAD, HEIF_SUFFIXES, by_content, by_suffix, hint_of, is_heif
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.ownership import MANIFEST
from pseudolabel.runtime.batching import batched

_OF_THE_SYSTEM = ("__MACOSX", "@eaDir")  # previews that macOS and network drives store next to images
_THREADS, _TOGETHER = 16, 4096  # threads that read first bytes (at a URL most time is waiting), files per batch
_SHOWN = 12  # suffixes that are counted by name

HIDDEN = "hidden"
BROKEN_LINK = "broken link"
LISTED_ALREADY = "link to a folder that is listed already"
ABOVE = "link to a folder above"
LINK = "link"
SPECIAL = "pipe, socket or device"
UNREADABLE_FOLDER = "folder that cannot be read"
UNREADABLE = "unreadable"

_File = tuple[str, str]  # path below the root, and why it is left out; empty if that is not decided yet


def find_images(root: str, outside: str = "") -> tuple[list[str], LeftOut]:
    """List the images below a folder, and count all other files by the reason why they are left out.

    A file with an image suffix is an image, whatever its content. A file with an unknown suffix is an image if it
    begins like one. Hidden files and folders, and those that operating systems add, are left out. Links to
    folders are followed; each folder is listed once.

    Args:
        root: local path or fsspec URL of a folder.
        outside: a folder inside the root whose files are not images of the data set, such as masks.

    Returns:
        Sorted paths relative to the root, and the files left out. A path may contain bytes that are not UTF-8;
        `printable` converts it to text.

    Raises:
        PathError: if the folder cannot be listed.
    """
    fs, base = open_filesystem(root)
    files = _files(root, outside)
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
    return sorted(images), LeftOut(reasons + _suffix_reasons(suffixes))


def find_files(root: str, suffix: str) -> tuple[list[str], LeftOut]:
    """List the files with a suffix below a folder, and count all other files, as `find_images` does.

    Raises:
        PathError: if the folder cannot be listed.
    """
    found: list[str] = []
    reasons: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    try:
        for name, reason in _files(root):
            if reason:
                reasons[reason] += 1
            elif _suffix(name) == suffix:
                found.append(name)
            else:
                suffixes[_suffix(name)] += 1
    except OSError as error:
        raise PathError(f"folder '{root}' cannot be listed: {error}") from error
    return sorted(found), LeftOut(reasons + _suffix_reasons(suffixes))


def _files(root: str, outside: str = "") -> Iterator[_File]:
    fs, base = open_filesystem(root)
    apart = open_filesystem(outside)[1] if outside else ""
    return _local_files(base, apart) if isinstance(fs, LocalFileSystem) else _remote_files(fs, base, apart)


def _local_files(root: str, outside: str) -> Iterator[_File]:
    """All files below a local folder. Linked folders come last, so that a folder is listed under its real path."""
    top = os.path.realpath(root)
    apart = os.path.realpath(outside) if outside else ""
    seen: set[str] = set()
    folders = [("", top, "")]  # prefix of file names, real path, why its files are left out
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
                continue  # our own manifests are not inputs
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
    """`file`, `folder`, `linked folder`, or the reason why it is left out."""
    try:
        if child.is_symlink():
            child.stat()  # raises if the target does not exist
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
    """Why a file or folder with this name is left out; empty if it is not."""
    if name in _OF_THE_SYSTEM:
        return f"in {name}"
    return HIDDEN if name.startswith(".") else ""


def _suffix(name: str) -> str:
    """The suffix in lower case, with its dot; empty if there is none."""
    _, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix}".lower() if dot else ""


def _heads(fs: fsspec.AbstractFileSystem, paths: Iterable[str]) -> Iterator[bytes | None]:
    """The first `HEAD` bytes of each file; None if it cannot be read."""
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


def _suffix_reasons(suffixes: Counter[str]) -> Counter[str]:
    """Reasons from suffixes: the most common ones by name, with a hint if there is one, the others together."""
    reasons: Counter[str] = Counter()
    for suffix, count in suffixes.most_common():
        if not suffix:
            reason = "without a suffix"
        elif hint_of(suffix):
            reason = f"{suffix} ({hint_of(suffix)})"
        elif len(reasons) < _SHOWN and re.fullmatch(r"\.[a-z0-9_+~-]{1,12}", suffix):
            reason = suffix
        else:
            reason = "of other kinds"
        reasons[reason] += count
    return reasons
