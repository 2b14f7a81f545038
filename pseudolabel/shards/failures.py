"""Every recorded failure of an output folder, and the CSV file that lists them."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from pseudolabel.errors import NoRecordError
from pseudolabel.io.folder import Folder
from pseudolabel.io.names import printable
from pseudolabel.records import Failure
from pseudolabel.shards.ledger import SKIPPED, Ledger

KINDS = ("cams", "masks", "segments", "filter", "captions")
COLUMNS = ("kind", "key", "origin", "status", "message")

Recorded = tuple[str, Failure]
"""Kind of output and failure."""


def find_failures(folder: Folder) -> list[Recorded]:
    """Every sample that is in no shard, by kind and key; failures that `masks` takes from `cams` appear once.

    Args:
        folder: an output folder, or one of its folders, such as `cams`.

    Raises:
        NoRecordError: if no job has recorded anything there.
    """
    ledgers = [Ledger(place, kind) for kind in KINDS for place in (folder, folder / kind)]
    recorded = {ledger: ledger.units() for ledger in ledgers}
    if not any(recorded.values()):
        raise NoRecordError(
            f"no job has recorded anything in '{folder.path}'; give the `out` of cams, generate, refine or filter, a "
            "folder in it such as 'cams', or the folder of captions"
        )
    found: list[Recorded] = []
    seen: set[Failure] = set()
    for ledger, units in recorded.items():
        failures = [failure for entry in ledger.read(units).values() for failure in entry.failures]
        new = sorted((failure for failure in failures if failure not in seen), key=lambda failure: failure.key)
        found += [(ledger.kind, failure) for failure in new]
        seen |= set(failures)
    return found


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
