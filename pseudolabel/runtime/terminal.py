"""What a command prints: results on standard output, notes and errors on standard error."""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pseudolabel.io.terminal import escaped

_SETTING = re.compile(r"`([a-z][a-z0-9_.]*)`")


def with_options(text: str, options: Mapping[str, str]) -> str:
    """The text with each setting in backticks replaced by its option; words that are not in `options` are unchanged.

    Args:
        text: a message, such as ``choose another `out` ``.
        options: the option of each setting, such as `--out` of `out`.
    """
    return _SETTING.sub(lambda setting: options.get(setting[1], setting[0]), text)


class Terminal(logging.Handler):
    """Prints results and, as a handler of the package's logger, notes.

    Attributes:
        options: the option of each setting, such as `--work.batch` of `work.batch`; messages name settings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options: Mapping[str, str] = {}

    def print(self, text: str) -> None:
        """Print a line of results."""
        print(with_options(text, self.options))

    def print_error(self, text: str) -> None:
        """Print a note or an error of one or several lines."""
        print(escaped(with_options(text, self.options), keep="\n"), file=sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record as plain text."""
        self.print_error(self.format(record))

    @contextmanager
    def shows(self, level: int) -> Iterator[None]:
        """Print the package's log records of this level and above inside the context."""
        logger = logging.getLogger("pseudolabel")
        before = logger.level, logger.propagate
        logger.setLevel(level)
        logger.propagate = False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.level, logger.propagate = before
