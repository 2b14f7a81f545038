"""What a command says: results on standard output, notes and errors on standard error, settings as its options."""

import logging
import re
import sys
from collections.abc import Mapping

from pseudolabel.io.terminal import escaped

_SETTING = re.compile(r"`([a-z][a-z0-9_.]*)`")


def with_options(text: str, options: Mapping[str, str]) -> str:
    """The text with the settings in backticks that are keys of `options`, such as `` `out` ``, as those: `--out`."""
    return _SETTING.sub(lambda setting: options.get(setting[1], setting[0]), text)


class Terminal(logging.Handler):
    """Prints results and, as a handler of the package's logger, notes.

    Attributes:
        options: the option of each setting, such as `--work.batch` of `work.batch`; messages name settings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options: Mapping[str, str] = {}

    def say(self, text: str) -> None:
        """Print a line of results."""
        print(with_options(text, self.options))

    def complain(self, text: str) -> None:
        """Print a note or an error, of one line or several."""
        print(escaped(with_options(text, self.options), keep="\n"), file=sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record as a plain line."""
        self.complain(self.format(record))
