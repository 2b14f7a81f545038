"""Progress bars of other libraries."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def library_bars() -> Iterator[None]:
    """Show progress bars of transformers and the hub only on the first rank and in a terminal, inside the context."""
    if (sys.stderr.isatty() and os.environ.get("RANK", "0") == "0") or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
