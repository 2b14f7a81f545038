"""The progress of a job on standard error: a live bar in a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 10.0


class ProgressLine:
    """Counts samples and measures their rate; see `show_progress`."""

    def __init__(self, title: str, total: int, done: int, failures: int) -> None:
        self.title, self.total = title, total
        self.done, self.failures = done, failures
        self._first, self._started = done, time.monotonic()
        self._last_line = self._started

    @property
    def rate(self) -> float:
        """Samples per second since this run started."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def update(self, done: int, failures: int) -> None:
        self.done, self.failures = done, failures
        if time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def restart(self) -> None:
        """Measure the rate from now on, without the samples of earlier runs."""
        self._first, self._started = self.done, time.monotonic()

    def line(self) -> str:
        eta = "--:--:--"
        if self.rate:
            minutes, seconds = divmod(round((self.total - self.done) / self.rate), 60)
            eta = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        count = f"{self.title}: {self.done}/{self.total} samples"
        return f"{count}, {self.rate:.2f} samples/s, ETA {eta}, failed {self.failures}"


class _Bar(ProgressLine):
    """Progress drawn as a bar in a terminal."""

    def __init__(self, title: str, total: int, done: int, failures: int, bar: Progress) -> None:
        super().__init__(title, total, done, failures)
        self._bar = bar
        self._task: TaskID = bar.add_task(title, total=total, completed=done, rate=0.0, failures=failures)

    def update(self, done: int, failures: int) -> None:
        self.done, self.failures = done, failures
        self._bar.update(self._task, completed=done, rate=self.rate, failures=failures)

    def restart(self) -> None:
        super().restart()
        self._bar.reset(self._task, completed=self.done)


@contextmanager
def show_progress(
    title: str, total: int, done: int = 0, failures: int = 0, show: bool = True
) -> Iterator[ProgressLine]:
    """Show progress on standard error inside the context.

    Nothing is shown if the package's logger is set to warnings only, as `quiet` does.

    Args:
        title: printed before the numbers.
        total: number of samples.
        done: number of samples that earlier runs finished.
        failures: number of these that failed.
        show: false on every rank but the first.
    """
    console = Console(stderr=True)
    if not show or logging.getLogger("pseudolabel").level > logging.INFO:
        yield _Silent(title, total, done, failures)
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.2f} samples/s"),
            TimeRemainingColumn(),
            TextColumn("[red]failed {task.fields[failures]}"),
        )
        with Progress(*columns, console=console) as bar:
            yield _Bar(title, total, done, failures, bar)
    else:
        progress = ProgressLine(title, total, done, failures)
        print(progress.line(), file=sys.stderr, flush=True)
        yield progress
        print(progress.line(), file=sys.stderr, flush=True)


class _Silent(ProgressLine):
    def update(self, done: int, failures: int) -> None:
        self.done, self.failures = done, failures
