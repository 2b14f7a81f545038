"""Every recorded failure of an output folder, and the CSV file that lists them."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from pseudolabel.errors import NoRecordError
from pseudolabel.io.folder import Folder
from pseudolabel.io.names import printable
from pseudolabel.records import Failure
from pseudolabel.shards.ledger import SKIPPED, Ledger

KINDS = ("cams", "masks", "segments", "filter")
COLUMNS = ("kind", "key", "origin", "status", "message")

Recorded = tuple[str, Failure]
"""The kind of what could not be made, and the failure."""


def find_failures(folder: Folder) -> list[Recorded]:
    """Every sample that is in no shard, by kind and key; what `masks` took over from `cams` comes once.

    Args:
        folder: an output folder, or one of its folders, such as `cams`.

    Raises:
        NoRecordError: if no job has recorded anything there.
    """
    ledgers = [Ledger(place, kind) for kind in KINDS for place in (folder, folder / kind)]
    recorded = {ledger: ledger.units() for ledger in ledgers}
    captions = [place for place in (folder, folder / "captions") if _caption_files(place)]
    if not any(recorded.values()) and not captions:
        raise NoRecordError(
            f"no job has recorded anything in '{folder.path}'; give the `out` of cams, generate, refine or filter, or "
            "a folder in it such as 'cams'"
        )
    found: list[Recorded] = []
    seen: set[Failure] = set()
    for ledger, units in recorded.items():
        failures = [failure for entry in ledger.read(units).values() for failure in entry.failures]
        new = sorted((failure for failure in failures if failure not in seen), key=lambda failure: failure.key)
        found += [(ledger.kind, failure) for failure in new]
        seen |= set(failures)
    for place in captions:
        found += [("captions", failure) for failure in _without_caption(place)]
    return found


def _caption_files(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.startswith("captions-") and name.endswith(".jsonl")]


def _without_caption(folder: Folder) -> list[Failure]:
    """The images of which a class has no caption yet because they could not be read, one failure each."""
    failed: dict[tuple[str, str], Failure] = {}
    done: set[tuple[str, str]] = set()
    for name in _caption_files(folder):
        try:
            lines = [json.loads(line) for line in folder.read_bytes(name).split(b"\n") if line.strip()]
            for line in lines:
                pair = (line["key"], line["class"])
                if line["caption"]:
                    done.add(pair)
                elif "failure" in line:
                    failed[pair] = Failure(**line["failure"])
        except (ValueError, KeyError, TypeError) as error:
            raise NoRecordError(f"'{folder.path}/{name}' is no file of captions ({error!r}); remove it") from error
    left = {failure.key: failure for pair, failure in failed.items() if pair not in done}
    return [left[key] for key in sorted(left)]


def count(failures: Sequence[Recorded]) -> str:
    """How many there are in all and by status: `3 failures: 2 missing, 1 truncated; 1 without labels left out`."""
    statuses = Counter(failure.status for _, failure in failures)
    skipped = statuses.pop(SKIPPED, 0)
    left_out = f"; {skipped:,} without labels left out" if skipped else ""
    total = statuses.total()
    if not total:
        return f"no failures{left_out}"
    by_status = ", ".join(f"{number:,} {status}" for status, number in statuses.most_common())
    return f"{total:,} {'failure' if total == 1 else 'failures'}: {by_status}{left_out}"


def to_csv(failures: Iterable[Recorded]) -> bytes:
    """The failures as UTF-8 CSV with a head line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for kind, failure in failures:
        writer.writerow([kind, *map(printable, (failure.key, failure.origin, failure.status, failure.message))])
    return text.getvalue().encode()
