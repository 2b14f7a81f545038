"""A lock that allows one run at a time in an output folder."""

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder

log = logging.getLogger(__name__)

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def lock_output(folder: Folder, rank: int) -> Iterator[None]:
    """Lock the folder for one rank of one run. The system releases the lock when the process ends, even if killed.

    Folders at URLs and some network file systems have no locks; for the latter, the first rank says so. Without a
    lock, two runs with the same settings write the same shards, and a run with other settings is refused because its
    fingerprint differs.

    Raises:
        OutputError: if another run holds the lock for this rank, or the folder cannot be written.
    """
    if folder.local is None:
        yield
        return
    path = folder.local / f".lock-{rank}"
    with ExitStack() as held:
        try:
            # No soft locks: they are files that a killed run would leave behind, and the next run could not start.
            held.enter_context(FileLock(path, timeout=0, fallback_to_soft=False))
            path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        except Timeout as error:
            raise OutputError(_busy(folder, path)) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise OutputError(f"'{path}' cannot be locked: {error.strerror}") from error
            if rank == 0:
                log.warning(
                    "'%s' is on a file system without locks (%s): make sure that only one run writes there",
                    folder.path,
                    error.strerror,
                )
        yield


def _busy(folder: Folder, path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"another run writes to '{folder.path}' ({who}); wait for it or stop it, or choose another {folder.setting}"
