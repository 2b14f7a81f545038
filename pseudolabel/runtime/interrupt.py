"""Ctrl-C ends a command, its threads and its worker processes at once, with a one-line message."""

import multiprocessing.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pseudolabel.runtime.single_process import RANK

INTERRUPTED_EXIT = 128 + signal.SIGINT
LIMIT_SECONDS = 1.0
SHOW_CURSOR = "\x1b[?25h"  # progress bars hide it


@contextmanager
def end_on_interrupt(message: str) -> Iterator[None]:
    """While the context lasts, Ctrl-C prints the message and ends the process and its workers.

    Threads are not joined, which could take minutes; files are written atomically. Only the first rank prints. An
    interrupt that is ignored before, as under `nohup`, is ignored inside the context, too.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker has inherited this handler
            raise KeyboardInterrupt
        _end(message)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(message: str) -> None:
    limit = threading.Timer(LIMIT_SECONDS, os._exit, (INTERRUPTED_EXIT,))
    limit.daemon = True
    limit.start()
    if os.environ.get(RANK, "0") == "0":
        start = SHOW_CURSOR if sys.stderr.isatty() else ""
        os.write(2, f"{start}\n{message}\n".encode(errors="backslashreplace"))  # not buffered, so never half-written
    for child in multiprocessing.active_children():
        child.kill()
    # Release semaphores; their tracker would print a warning otherwise.
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(INTERRUPTED_EXIT)
