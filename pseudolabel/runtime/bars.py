"""Progress bars of libraries, which several processes or a log file make unreadable."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def library_bars() -> Iterator[None]:
    """Within this, transformers and the hub show their bars on the first rank in a terminal alone."""
    if (sys.stderr.isatty() and os.environ.get("RANK", "0") == "0") or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
