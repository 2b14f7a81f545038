"""Which mask shards there are, and how many samples each of them holds."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from mmengine.logging import print_log

from pseudolabel.errors import ShardError
from pseudolabel.io.files import is_folder, join
from pseudolabel.io.folder import Folder
from pseudolabel.io.shard_paths import match_shards
from pseudolabel.shards.ledger import INDEX, RUN, LedgerEntry

EXAMPLE = "a folder that `pseudolabel refine` wrote, a .tar, or a pattern such as 'masks/masks-{000000..000009}.tar'"
IMAGE_MEMBERS = ("jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff")
MASK_MEMBER = "png"
_OURS = re.compile(r"masks-\d{6}\.tar")
CAM_MEMBER = "cam.npz"

SORT = "to sort a tar: `mkdir all && tar -xf OLD.tar -C all && tar --sort=name -cf NEW.tar -C all .`"

Member = TypeVar("Member")


def find_shards(shards: str | Sequence[str]) -> list[str]:
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


def image_and_mask(path: str, key: str, members: Mapping[str, Member]) -> tuple[Member, Member]:
    """The image and the pseudo-mask among a sample's members, by their extensions.

    They are `.jpg` and `.png` in shards of ours; in others they may be any one member of an image format besides PNG,
    and any one PNG, such as `.image.webp` and `.seg.png`. Of several, the one without further dots is meant.

    Raises:
        ShardError: if one is missing, as in CAM shards, or several may be meant.
    """
    if CAM_MEMBER in members:
        raise ShardError(f"'{path}' holds CAMs, not pseudo-masks; make masks of them with `pseudolabel refine` first")
    image, mask = _one(members, IMAGE_MEMBERS), _one(members, (MASK_MEMBER,))
    if image is None or mask is None:
        wanted = "one image (.jpg) and one mask (.png, a class index per pixel) are needed"
        raise ShardError(f"'{path}': sample '{key}' has members {sorted(members)}, but {wanted}; {_rename(path)}")
    return members[image], members[mask]


def _one(members: Mapping[str, Member], formats: Sequence[str]) -> str | None:
    """The name of the one member of these formats, or of the first format that is a member's whole extension."""
    plain = next((name for name in formats if name in members), None)
    found = [name for name in members if name.rpartition(".")[2] in formats]
    return plain or (found[0] if len(found) == 1 else None)


def _rename(path: str) -> str:
    if is_ours(path):
        return hint(path)
    return f"name them KEY.jpg and KEY.png, side by side in the tar; {SORT}"


def is_ours(path: str) -> bool:
    """Whether a shard was written by a run of this package, by its name or what lies beside it."""
    folder, _, name = path.rpartition("/")
    return bool(_OURS.fullmatch(name)) or Folder(folder or ".").exists(RUN)


def hint(path: str) -> str:
    """What to do about a shard that is not as it was written."""
    if not is_ours(path):
        return "download or copy it again, or write it again"
    return f"find all that is wrong with `pseudolabel verify {path.rpartition('/')[0] or '.'}`, and write it again"


def warn_if_unfinished(counts: Mapping[str, int]) -> None:
    """Log a warning for every folder whose run has not listed its shards yet.

    Args:
        counts: number of samples by shard path.
    """
    for folder in dict.fromkeys(path.rpartition("/")[0] or "." for path in counts):
        if not Folder(folder).exists(RUN) or Folder(folder).exists(INDEX):
            continue
        found = [count for path, count in counts.items() if (path.rpartition("/")[0] or ".") == folder]
        print_log(
            f"'{folder}' is of a run that is not finished (no {INDEX}): training on the {sum(found)} samples of its "
            f"{len(found)} shards. Run the same `pseudolabel refine` command again to complete it.",
            logger="current",
            level=logging.WARNING,
        )


def count_samples(paths: Sequence[str], samples: int | Sequence[int] | None = None) -> np.ndarray:
    """Samples of every shard, without opening the shards.

    Args:
        paths: the shards; local paths or URLs.
        samples: of each shard, one number where all hold the same, in place of what the ledger says.

    Returns:
        int64 (shards,).

    Raises:
        ShardError: if no ledger tells, or `samples` does not fit the shards.
    """
    if samples is not None:
        given = [samples] * len(paths) if isinstance(samples, int) else list(samples)
        if len(given) != len(paths) or min(given) < 0:
            raise ShardError(f"samples={samples} does not fit {len(paths)} shards; give one count for each of them")
        return np.array(given, np.int64)
    indexed: dict[str, dict[str, int]] = {}
    return np.array([_count(path, indexed) for path in paths], np.int64)


def _count(path: str, indexed: dict[str, dict[str, int]]) -> int:
    """From the folder's index, which is read once, or from the shard's own ledger entry where there is none yet."""
    folder, _, name = path.rpartition("/")
    if folder not in indexed:
        indexed[folder] = _read_index(Folder(folder or "."))
    if name in indexed[folder]:
        return indexed[folder][name]
    entry = name.removesuffix(".tar") + ".json"
    try:
        return LedgerEntry.parse(Folder(folder or ".").read_bytes(entry)).samples
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"nothing tells how many samples '{path}' holds: neither {INDEX} nor {entry} does; finish the run "
            "with the same `pseudolabel refine` command, or give `samples`, the count of each shard"
        ) from error


def _read_index(folder: Folder) -> dict[str, int]:
    try:
        index = json.loads(folder.read_bytes(INDEX))
        return {shard["shard"]: int(shard["samples"]) for shard in index["shards"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"'{folder.path}/{INDEX}' is damaged ({error!r}); {hint(f'{folder.path}/{INDEX}')}") from error
