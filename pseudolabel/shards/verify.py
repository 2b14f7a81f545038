"""Checking every hash, count and member of an output folder."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable

from PIL import Image

from pseudolabel.errors import NoRecordError, OutputError, SampleError
from pseudolabel.io.files import is_folder
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import read_mask
from pseudolabel.io.tar import Members
from pseudolabel.shards.ledger import INDEX, RUN, Ledger, LedgerEntry, shard_name
from pseudolabel.shards.packing import CAPTIONS, JSONL, TAR
from pseudolabel.shards.sample import CAM_MEMBERS, MASK_MEMBERS, decode_cams

KINDS = {"cams": TAR, "masks": TAR, "segments": TAR, "filter": JSONL, "captions": CAPTIONS}
MEMBERS = {"cams": CAM_MEMBERS, "masks": MASK_MEMBERS, "segments": MASK_MEMBERS}


def kind_of(folder: Folder) -> str | None:
    """The kind of shards that the folder holds; None if it holds none."""
    names = folder.names()
    for kind, packing in KINDS.items():
        is_tar = packing is TAR and any(name.startswith(f"{kind}-") and name.endswith(".tar") for name in names)
        if is_tar or Ledger(folder, kind).units():
            return kind
    return None


def find_folders(folder: Folder) -> list[Folder]:
    """The folder, if it holds shards; else those of a run's folder that do.

    Raises:
        NoRecordError: if there are none.
    """
    if kind_of(folder) is not None:
        return [folder]
    if not is_folder(folder.path):
        raise NoRecordError(f"there is no folder '{folder.path}'")
    if found := [folder / kind for kind in KINDS if kind_of(folder / kind) is not None]:
        return found
    raise NoRecordError(
        f"'{folder.path}' holds no shards of this package, nor do {', '.join(KINDS)} in it; give the `out` of cams, "
        "generate, refine or filter, a folder in it such as 'masks', or the folder of captions"
    )


def verify(folder: Folder, on_shard: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """All problems of a folder of shards, one line each; empty if it is complete and valid.

    Args:
        folder: holds shards of one kind with their ledger, as `find_folders` gives it.
        on_shard: called after each shard with the number of checked shards and the total.
    """
    kind = kind_of(folder)
    if kind is None:
        return [f"'{folder.path}' holds no shards"]
    ledger = Ledger(folder, kind)
    numbers = sorted(ledger.units())
    problems = _check_run(ledger) + _check_names(folder, kind, set(numbers))
    entries = []
    for done, number in enumerate(numbers, 1):
        entry = ledger.stored(number)
        if entry is None:
            problems.append(
                f"{kind}-{number:06d}: the ledger entry is damaged, or its shard is missing or of another size"
            )
        else:
            entries.append(entry)
            problems += [f"{entry.shard}: the retry of its failed samples is not finished"] * entry.reopened
            problems += _check_shard(folder, kind, entry)
        on_shard(done, len(numbers))
    return problems + _check_index(folder, entries)


def _check_run(ledger: Ledger) -> list[str]:
    try:
        return [] if ledger.settings() is not None else [f"{RUN} is missing"]
    except OutputError as error:
        return [str(error)]


def _check_names(folder: Folder, kind: str, numbers: set[int]) -> list[str]:
    ledgered = {shard_name(kind, number, KINDS[kind].suffix) for number in numbers}
    return [f"{name} has no ledger entry" for name in folder.names() if name.endswith(".tar") and name not in ledgered]


def _check_shard(folder: Folder, kind: str, entry: LedgerEntry) -> list[str]:
    data = folder.read_bytes(entry.shard)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return [f"{entry.shard}: the bytes differ from those that were written (sha256)"]
    problems, count = [], 0
    try:
        for key, members in KINDS[kind].read(io.BytesIO(data)):
            count += 1
            if kind in MEMBERS:
                problems += [f"{entry.shard}: {problem}" for problem in _check_sample(kind, key, members)]
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{entry.shard}: not a readable {KINDS[kind].suffix} ({error})")
    if count != entry.samples:
        problems.append(f"{entry.shard}: {count} samples where the ledger says {entry.samples}")
    return problems


def _check_sample(kind: str, key: str, members: Members) -> list[str]:
    if set(members) != MEMBERS[kind]:
        return [f"sample '{key}' has members {sorted(members)} instead of {sorted(MEMBERS[kind])}"]
    try:
        width, height = Image.open(io.BytesIO(members["jpg"])).size
        if kind == "cams":
            size = decode_cams(key, members).scores.size
        else:
            fields = json.loads(members["json"])
            size = read_mask(members["png"], key).shape
            if fields["key"] != key:
                return [f"sample '{key}' describes itself as '{fields['key']}'"]
    except (SampleError, OSError, ValueError, KeyError, TypeError) as error:
        return [f"sample '{key}' cannot be read: {error}"]
    return [] if size == (height, width) else [f"sample '{key}': image {(height, width)} but {size} beside it"]


def _check_index(folder: Folder, entries: list[LedgerEntry]) -> list[str]:
    if not folder.exists(INDEX):
        return [f"{INDEX} is missing: the run is not finished"]
    try:
        index = json.loads(folder.read_bytes(INDEX))
        listed = [(shard["shard"], shard["samples"], shard["sha256"]) for shard in index["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{INDEX} is damaged ({error!r}): run the same command again to write a new one"]
    if listed != [(entry.shard, entry.samples, entry.sha256) for entry in entries]:
        return [f"{INDEX} does not list the shards that the ledger has"]
    return []
