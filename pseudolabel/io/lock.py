"""One run at a time on one output folder."""

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
    """Hold the folder for one rank of one run; the system lets go when the process ends, however it ends.

    Folders behind URLs have no locks, nor have some network file systems, of which the first rank tells: there, two
    runs with the same settings write the same shards, and one with other settings is refused by the fingerprint.

    Raises:
        OutputError: if the same rank of another run is still at work there, or the folder cannot be written.
    """
    if folder.local is None:
        yield
        return
    path = folder.local / f".lock-{rank}"
    with ExitStack() as held:
        try:
            # Its soft locks, which are files, would outlive a killed run and keep the next one out.
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
    return f"another run writes to '{folder.path}' ({who}); wait for it or stop it, or choose another `out`"
