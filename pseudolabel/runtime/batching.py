"""Batches of a stream, and items that skip the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Tuples of `size` items, the last one possibly shorter (itertools has this from Python 3.12 on)."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def static_batches(items: Iterable[T], size: int) -> Iterator[tuple[tuple[T, ...], int]]:
    """Batches of one size, each with its number of items before padding; the last item pads the last batch.

    A single batch is not padded.
    """
    for number, batch in enumerate(batched(items, size)):
        missing = size - len(batch) if number else 0
        yield (*batch, *[batch[-1]] * missing), len(batch)


def bypass(
    items: Iterable[T],
    needs_run: Callable[[T], bool],
    run: Callable[[Iterator[T]], Iterator[R]],
    otherwise: Callable[[T], R],
) -> Iterator[tuple[T, R]]:
    """(item, result) pairs in the order of the items, where only some items go through `run`.

    Args:
        items: read only as far as `run` needs.
        needs_run: whether an item goes through `run`.
        run: gives one result for each item of a stream, in order.
        otherwise: gives the result of an item that needs no work.
    """
    items, waiting = iter(items), deque[T]()

    def items_to_run() -> Iterator[T]:
        for item in items:
            waiting.append(item)
            if needs_run(item):
                yield item

    for result in run(items_to_run()):
        while not needs_run(waiting[0]):
            item = waiting.popleft()
            yield item, otherwise(item)
        yield waiting.popleft(), result
    for item in chain(waiting, items):
        assert not needs_run(item), "an item was left without a result"
        yield item, otherwise(item)
