"""Ranks end with their launcher, so that no orphan keeps a device or writes into the next run's folder."""

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

EVERY_SECONDS = 0.5
TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"  # set by torchrun and, for several processes, by `accelerate launch`
ACCELERATE_VARIABLE = "ACCELERATE_MIXED_PRECISION"  # set by every `accelerate launch`
MESSAGE = (
    "pseudolabel: the launcher is gone; stopping. Every finished shard is safe: run the same command again "
    "(train resumes with --resume)\n"
)
_watched = 0  # id of the process that has a watchdog; a forked process needs its own


def end_with_launcher() -> None:
    """End this process within a second of its launcher's end; a second call, or one without a launcher, does nothing.

    Call it before torch is imported, which takes seconds. A thread polls the parents, because the kernel sends its
    parent-death signal also when only the launcher's thread that started this process ends.
    """
    if _watched == os.getpid():
        return
    if TORCHRUN_VARIABLE in os.environ:
        _watch(next(filter(_may_launch, _parents()), None))
    elif ACCELERATE_VARIABLE in os.environ and (launcher := next(filter(_is_accelerate, _parents()), None)):
        _watch(launcher)


def _watch(launcher: int | None) -> None:
    """Start the watchdog; `launcher` is None if it ended before this call."""
    global _watched
    _watched = os.getpid()
    threading.Thread(target=_wait_and_end, args=(launcher,), name="watchdog", daemon=True).start()


def _wait_and_end(launcher: int | None) -> None:
    while launcher is not None and launcher in _parents():
        time.sleep(EVERY_SECONDS)
    with suppress(OSError, ValueError):  # standard error is closed
        if select.select([], [2], [], 0)[1]:  # never block on a full pipe that has no reader
            os.write(2, MESSAGE.encode())
    os._exit(1)


def _may_launch(process: int) -> bool:
    """Whether a process has loaded torch, as launchers have; where that is unknown, whether it is the user's own."""
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
    """Whether its command line has `accelerate`; the environment variable may also come from a shell."""
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
