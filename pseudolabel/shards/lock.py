"""One run at a time on one output folder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudolabel.shards.folder import Folder, OutputError


@contextmanager
def lock_output(folder: Folder, rank: int) -> Iterator[None]:
    """Hold the folder for one rank of one run; the system lets go when the process ends, however it ends.

    Folders behind URLs have no locks: there, two runs with the same settings write the same bytes, and one with other
    settings is refused by the fingerprint.

    Raises:
        OutputError: if the same rank of another run is still at work there.
    """
    if folder.local is None:
        yield
        return
    path = folder.local / f".lock-{rank}"
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(_busy(folder, path)) from error
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        yield


def _busy(folder: Folder, path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"another run writes to '{folder.path}' ({who}); wait for it or stop it, or choose another --out"
