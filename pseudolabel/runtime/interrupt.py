"""Ctrl-C ends a command at once and with one line, whatever its threads and worker processes are doing."""

import multiprocessing.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pseudolabel.runtime.alone import RANK

INTERRUPTED_EXIT = 128 + signal.SIGINT
AT_MOST_SECONDS = 1.0
SHOW_CURSOR = "\x1b[?25h"  # which a progress bar has hidden


@contextmanager
def ended_by_interrupt(message: str) -> Iterator[None]:
    """While the context lasts, Ctrl-C prints the message and ends the process and its workers.

    Nothing is unwound: threads that wait for others would take minutes, and files appear whole or not at all anyway. Of
    several ranks the first one prints. Where the interrupt is ignored, as under `nohup`, that stays so.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker, which has inherited this
            raise KeyboardInterrupt
        _end(message)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(message: str) -> None:
    limit = threading.Timer(AT_MOST_SECONDS, os._exit, (INTERRUPTED_EXIT,))
    limit.daemon = True
    limit.start()
    if os.environ.get(RANK, "0") == "0":
        start = SHOW_CURSOR if sys.stderr.isatty() else ""
        os.write(2, f"{start}\n{message}\n".encode(errors="backslashreplace"))  # not buffered, so never half-written
    for child in multiprocessing.active_children():
        child.kill()
    # Of semaphores; or their tracker would complain after our last line.
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(INTERRUPTED_EXIT)
