"""Which epoch it is, for data sets that a DataLoader does not tell."""

from multiprocessing import get_context

from torch.utils.data import get_worker_info

_RECENT = 8  # iterators of one loader that may be alive at once


class EpochCounter:
    """Counts the passes over an iterable data set, alike in all workers of one DataLoader iterator.

    Workers that live for one epoch know nothing of earlier ones, and those that persist are not told when the next
    begins. So they meet in shared memory: the first worker of an iterator (they all know it by its base seed) takes the
    next number, the others find it there, and each counts its own passes from it. Iterators with the same base seed, as
    where torch is seeded anew before each, have the same epoch.
    """

    def __init__(self) -> None:
        # Shared memory of the spawn context may also be inherited by forked workers, but not the other way round.
        self._table = get_context("spawn").Array("q", [0] + [-1, 0] * _RECENT)
        self._passes = 0

    def take(self) -> int:
        """The number of the pass that begins now, from 0; called once per pass by every process that reads."""
        worker = get_worker_info()
        if worker is None:
            with self._table.get_lock():
                self._table[0] += 1
                return self._table[0] - 1
        epoch = self._first(worker.seed - worker.id) + self._passes
        self._passes += 1
        with self._table.get_lock():
            self._table[0] = max(self._table[0], epoch + 1)
        return epoch

    def _first(self, iterator: int) -> int:
        """The first epoch of an iterator."""
        with self._table.get_lock():
            upcoming, recent = self._table[0], list(self._table[1:])
            known = dict(zip(recent[::2], recent[1::2], strict=True))
            if iterator not in known:
                self._table[:] = [upcoming + 1, iterator, upcoming, *recent[:-2]]
            return known.get(iterator, upcoming)

    def __deepcopy__(self, memo: dict[int, object]) -> "EpochCounter":
        return EpochCounter()  # a copied data set starts anew; shared memory cannot be copied
