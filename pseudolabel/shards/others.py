"""Folders that hold files of other programs under names that shards and their ledger take."""

import json
import re

from pseudolabel.errors import NotOursError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import NAMED
from pseudolabel.shards.ledger import INDEX, RUN
from pseudolabel.shards.scores import SCORES

SUMMARY = "summary.json"


def check_shard_folder(folder: Folder, kind: str) -> None:
    """Check that a run may write its shards here: no file would be overwritten, or `run.json` is ours.

    Args:
        folder: of the new shards; need not exist.
        kind: of the shards; the prefix of their names.

    Raises:
        NotOursError: if a file would be overwritten.
    """
    taken = re.compile(rf"{re.escape(kind)}-\d{{6,12}}\.(tar|jsonl|json)")
    found = [name for name in folder.names() if name in (RUN, INDEX, SUMMARY, SCORES) or taken.fullmatch(name)]
    if found and not _is_ours(folder):
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise NotOursError(
            f"'{folder.path}' holds files that pseudolabel did not write and that would be overwritten: "
            f"{', '.join(map(repr, found[:NAMED]))}{more}; choose another {folder.setting}, or move what is there"
        )


def _is_ours(folder: Folder) -> bool:
    """Whether there is a `run.json` as the ledger writes it."""
    if not folder.exists(RUN):
        return False
    try:
        noted = json.loads(folder.read_bytes(RUN))
        return isinstance(noted["settings"], dict) and re.fullmatch(r"[0-9a-f]{64}", noted["fingerprint"]) is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False
