"""Ranks end with their launcher, so that no orphan holds a device or writes beside the next run.

Without a launcher, as in a plain run under `nohup`, nothing is watched.
"""

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

EVERY_SECONDS = 0.5
LAUNCHED = "TORCHELASTIC_RUN_ID"  # set by torchrun and, for several processes, by `accelerate launch`
LAUNCHED_ALONE = "ACCELERATE_MIXED_PRECISION"  # set by every `accelerate launch`
MESSAGE = (
    "pseudolabel: the launcher is gone; stopping. Every finished shard is safe: run the same command again "
    "(train goes on with --resume)\n"
)
_watched = 0  # the process that is watched already: not the one that it was forked from


def end_with_launcher() -> None:
    """End this process within a second of its launcher's death, whatever it is doing then; a second call does nothing.

    For the very start of a process: importing torch takes seconds. A thread polls the parents, because the kernel's
    parent-death signal also comes when just the launcher's thread that started this process has ended.
    """
    if _watched == os.getpid():
        return
    if LAUNCHED in os.environ:
        _watch(next(filter(_may_launch, _parents()), None))
    elif LAUNCHED_ALONE in os.environ and (launcher := next(filter(_is_accelerate, _parents()), None)):
        _watch(launcher)


def _watch(launcher: int | None) -> None:
    """`None` is a launcher that was gone before this process could look."""
    global _watched
    _watched = os.getpid()
    threading.Thread(target=_wait_and_end, args=(launcher,), name="watchdog", daemon=True).start()


def _wait_and_end(launcher: int | None) -> None:
    while launcher is not None and launcher in _parents():
        time.sleep(EVERY_SECONDS)
    with suppress(OSError, ValueError):  # of a closed standard error
        if select.select([], [2], [], 0)[1]:  # a full pipe that is read no more must not keep this process
            os.write(2, MESSAGE.encode())
    os._exit(1)


def _may_launch(process: int) -> bool:
    """Launchers have torch loaded. Where the system does not tell, all but the first process may be one."""
    try:
        loaded = Path(f"/proc/{process}/maps").read_text(errors="replace")
    except OSError:
        loaded = ""
    return "libtorch" in loaded if loaded else process != 1 and _is_own(process)


def _is_own(process: int) -> bool:
    try:
        return Path(f"/proc/{process}").stat().st_uid == os.getuid()
    except OSError:
        return not sys.platform.startswith("linux")


def _is_accelerate(process: int) -> bool:
    """By the command line, as the variable that `accelerate launch` sets may also come from a shell."""
    try:
        return b"accelerate" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _parents() -> Iterator[int]:
    """Process ids of the parent, its parent and so on; of the parent alone where the system has no /proc."""
    process: int | None = os.getppid()
    while process:
        yield process
        process = _parent_of(process)


def _parent_of(process: int) -> int | None:
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])
