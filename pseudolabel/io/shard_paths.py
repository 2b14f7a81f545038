"""Find the tar files that a folder, a path or a pattern refers to."""

import glob
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import NamedTuple

from pseudolabel.io.files import is_file, is_folder, join
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.io.left_out import LeftOut

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_WILDCARD = re.compile(r"[*?\[]")


class FoundShards(NamedTuple):
    """Paths of tar files, and the other files of their folder, counted by reason."""

    paths: list[str]
    left_out: LeftOut


def match_shards(pattern: str) -> list[str]:
    """Paths of tar files, sorted by name.

    Args:
        pattern: a folder of `.tar` files, a tar file, or a pattern with `{000..127}`, `{a,b}`, `*`, `?` or `[...]`; a
            local path or any fsspec URL. A file or folder that has exactly this name is preferred to the pattern's
            meaning. A path without wildcards is returned even if there is no such file.
    """
    return find_shards(pattern).paths


def find_shards(pattern: str) -> FoundShards:
    """The paths of `match_shards`, and the files that it skips in a folder."""
    found = [_find(name) for name in _expand(pattern)]
    paths = dict.fromkeys(path for shards in found for path in shards.paths)
    return FoundShards(list(paths), sum((shards.left_out for shards in found), LeftOut()))


def expand_braces(pattern: str) -> list[str]:
    """Expand `{000..127}` (padded with zeros as written) and `{a,b}`, as shells and WebDataset do."""
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


def _expand(pattern: str) -> list[str]:
    if is_folder(pattern) or is_file(pattern):
        return [pattern]
    folder, slash, name = pattern.rpartition("/")
    if folder and is_folder(folder):
        return [f"{folder}{slash}{one}" for one in expand_braces(name)]
    return expand_braces(pattern)


def _find(path: str) -> FoundShards:
    if is_folder(path):
        return _list_folder(path)
    if not _WILDCARD.search(path) or is_file(path):
        return FoundShards([path], LeftOut())
    folder, slash, name = path.rpartition("/")
    if _WILDCARD.search(name) and is_folder(folder or slash or "."):
        hidden = name.startswith(".")
        names = [one for one in _names_in(folder or slash or ".") if fnmatchcase(one, name)]
        return FoundShards([f"{folder}{slash}{one}" for one in names if hidden or one[0] != "."], LeftOut())
    if "://" not in path:
        return FoundShards(sorted(glob.glob(path)), LeftOut())  # fsspec's glob would make the paths absolute
    fs, name = open_filesystem(path)
    return FoundShards([fs.unstrip_protocol(match) for match in sorted(fs.glob(name))], LeftOut())


def _list_folder(path: str) -> FoundShards:
    names = _names_in(path)
    shards = [name for name in names if name.endswith(".tar") and not name.startswith(".")]
    others = Counter(_kind(join(path, name), name) for name in names if name not in shards)
    return FoundShards([join(path, name) for name in shards], LeftOut(others))


def _kind(path: str, name: str) -> str:
    """Why a file or folder next to the shards is left out."""
    if name.startswith("."):
        return "hidden"
    compressed = next((ending for ending in COMPRESSED if name.lower().endswith(ending)), "")
    if compressed:
        return f"{compressed} (unpack it to a plain .tar)"
    if is_folder(path):
        return "folders beside the shards"
    dot = name.rfind(".")
    return f"{name[dot:].lower()} beside the shards" if dot > 0 else "without a suffix beside the shards"


def _names_in(folder: str) -> list[str]:
    fs, name = open_filesystem(folder)
    return sorted(path.rstrip("/").rpartition("/")[2] for path in fs.ls(name, detail=False))
