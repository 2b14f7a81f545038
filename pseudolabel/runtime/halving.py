"""Less at once where the device's memory is too small for a batch."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

R = TypeVar("R")
Rows = torch.Tensor | Sequence[Any] | None

log = logging.getLogger(__name__)


class Halving:
    """Calls a function on as many rows at once as memory has been enough for; what was too much is not tried again.

    Attributes:
        most: rows that a call may take; None before memory has been too small.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, run: Callable[..., R], *rows: Rows) -> list[R]:
        """The results of the parts of a batch, in order; a single one where memory is enough.

        Args:
            run: takes the rows of each argument.
            rows: tensors or sequences of one length; None is passed on.

        Raises:
            torch.OutOfMemoryError: if memory is too small for one row.
        """
        count = next(len(own) for own in rows if own is not None)
        while True:
            size = count if self.most is None else min(self.most, count)
            try:
                return [run(*_part(rows, start, size)) for start in range(0, count, size)]
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            # Outside of the handler, whose traceback holds the tensors of the attempt.
            self._halve(size)

    def _halve(self, size: int) -> None:
        self.most = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d rows at once: %d from here on; `work.batch` sets their number", size, self.most
        )


def _part(rows: Sequence[Rows], start: int, size: int) -> list[Rows]:
    return [None if own is None else own[start : start + size] for own in rows]
