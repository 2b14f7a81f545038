"""Finding shards, and the members that make a sample."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pseudolabel.errors import ShardError
from pseudolabel.io.files import is_folder, join
from pseudolabel.io.folder import Folder
from pseudolabel.io.shard_paths import match_shards
from pseudolabel.shards.ledger import INDEX, RUN

EXAMPLE = "a folder that `pseudolabel refine` wrote, a .tar, or a pattern such as 'masks/masks-{000000..000009}.tar'"
IMAGE_MEMBERS = ("jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff")
MASK_MEMBER = "png"
_OURS = re.compile(r"(masks|cams)-\d{6}\.tar")
CAM_MEMBER = "cam.npz"

SORT = "to sort a tar: `mkdir all && tar -xf OLD.tar -C all && tar --sort=name -cf NEW.tar -C all .`"

log = logging.getLogger(__name__)
Member = TypeVar("Member")


def find_shards(shards: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Paths of shards in the order of their names.

    Args:
        shards: a folder of `.tar` files, a tar, or a pattern with `{000..127}`, `{a,b}`, `*`, `?` or `[...]`; a local
            path or any fsspec URL; or a list of such.

    Raises:
        ShardError: if nothing matches.
    """
    patterns = [os.fspath(shards)] if isinstance(shards, str | os.PathLike) else [os.fspath(part) for part in shards]
    paths = list(dict.fromkeys(path for pattern in patterns for path in match_shards(pattern)))
    if not paths:
        raise ShardError(_nothing_found(patterns))
    return paths


def _nothing_found(names: Sequence[str]) -> str:
    for name in names:
        if is_folder(name):
            inner, compressed = join(name, "masks"), [file for file in Folder(name).names() if ".tar." in file]
            if compressed:
                return f"'{name}' holds compressed tars such as '{compressed[0]}'; unpack them to .tar"
            if is_folder(inner) and match_shards(inner):
                return f"'{name}' holds no shards, but '{inner}' does; give that"
    return f"no shards in {', '.join(map(repr, names)) or 'an empty list'}; give {EXAMPLE}"


def image_and_target(path: str, key: str, members: Mapping[str, Member]) -> tuple[Member, Member]:
    """The image and the pseudo-mask, or the class activation maps, among a sample's members, by their extensions.

    They are `.jpg` and `.png` or `.cam.npz` in shards of this package. In other shards they may be any one member of an
    image format besides PNG, and any one PNG, such as `.image.webp` and `.seg.png`; of several, the one without further
    dots counts.

    Raises:
        ShardError: if one is missing, or several are possible.
    """
    image = _one(members, IMAGE_MEMBERS)
    target = CAM_MEMBER if CAM_MEMBER in members else _one(members, (MASK_MEMBER,))
    if image is None or target is None:
        wanted = "one image (.jpg) and one mask (.png, a class index per pixel) are needed"
        raise ShardError(f"'{path}': sample '{key}' has members {sorted(members)}, but {wanted}; {_rename(path)}")
    return members[image], members[target]


def _one(members: Mapping[str, Member], formats: Sequence[str]) -> str | None:
    """The only member with one of these formats, or the first format that is a member's complete extension."""
    plain = next((name for name in formats if name in members), None)
    found = [name for name in members if name.rpartition(".")[2] in formats]
    return plain or (found[0] if len(found) == 1 else None)


def _rename(path: str) -> str:
    if is_ours(path):
        return hint(path)
    return f"name them KEY.jpg and KEY.png, side by side in the tar; {SORT}"


def is_ours(path: str) -> bool:
    """Whether a shard was written by a run of this package, by its name or a `run.json` beside it."""
    return bool(_OURS.fullmatch(path.rpartition("/")[2])) or Folder(folder_of(path)).exists(RUN)


def hint(path: str) -> str:
    """The fix for a shard that has changed since it was written."""
    if not is_ours(path):
        return "download or copy it again, or write it again"
    return f"list all problems with `pseudolabel verify {folder_of(path)}`, and write it again"


def warn_if_unfinished(counts: Mapping[str, int]) -> None:
    """Log a warning for every folder whose run has not listed its shards yet.

    Args:
        counts: number of samples by shard path.
    """
    for folder in dict.fromkeys(map(folder_of, counts)):
        if not Folder(folder).exists(RUN) or Folder(folder).exists(INDEX):
            continue
        found = [count for path, count in counts.items() if folder_of(path) == folder]
        log.warning(
            "'%s' is of a run that is not finished (no %s): it has %d samples in %d shards so far. Run the same "
            "command again to complete it.",
            folder,
            INDEX,
            sum(found),
            len(found),
        )


def folder_of(path: str) -> str:
    """The folder of a shard."""
    return path.rpartition("/")[0] or "."
