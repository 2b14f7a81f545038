"""The commands that inspect the shards and records of a run."""

import sys
from typing import TYPE_CHECKING

from pseudolabel.command_line import show, terminal
from pseudolabel.io.terminal import escaped

if TYPE_CHECKING:
    from pseudolabel.io.folder import Folder


def verify(folder: str) -> int:
    """Check every hash, count and member of the shards of a run.

    Args:
        folder: the output folder of a run, such as runs/voc, or a folder of shards, such as runs/voc/masks.
    """
    from pseudolabel.io.folder import Folder
    from pseudolabel.shards.verify import find_folders

    return max([_verify_shards(found) for found in find_folders(Folder(folder))])


def _verify_shards(folder: "Folder") -> int:
    from pseudolabel.runtime.progress import show_progress
    from pseudolabel.shards.verify import verify as run

    with show_progress("verify", 0, show=sys.stderr.isatty()) as progress:
        problems = run(folder, lambda done, total: progress.update(done, 0))
    for problem in problems:
        terminal.print(problem)
    failed = "1 failure" if len(problems) == 1 else f"{len(problems):,} failures"
    terminal.print(f"{folder.path}: {failed}" if problems else f"{folder.path}: complete and valid")
    return 1 if problems else 0


def failures(out: str, csv: str = "") -> int:
    """List every sample that failed or was left out, with its key, reason and origin.

    The exit status is 3 if samples failed, else 0.

    Args:
        out: output folder of cams, refine, generate or filter, such as runs/voc, or a folder in it, such as
            runs/voc/cams; or the folder of captions.
        csv: also write them to this file, with the columns kind, key, origin, status and message.
    """
    from pseudolabel.errors import FAILED_SAMPLES_EXIT
    from pseudolabel.io.folder import Folder
    from pseudolabel.io.ownership import write_own
    from pseudolabel.shards.failures import count, find_failures, to_csv
    from pseudolabel.shards.ledger import SKIPPED

    found = find_failures(Folder(out))
    for kind, failure in found:
        origin = "" if failure.origin in failure.message else f" [{failure.origin}]"
        terminal.print(escaped(f"{kind} {failure.key}: {failure.status}: {failure.message}{origin}"))
    if csv:
        write_own(csv, to_csv(found), "`csv`")
        show([], [escaped(f"{len(found):,} lines -> {csv}")], 0)
    print(escaped(f"{out}: {count(found)}"))
    return FAILED_SAMPLES_EXIT if any(failure.status != SKIPPED for _, failure in found) else 0
