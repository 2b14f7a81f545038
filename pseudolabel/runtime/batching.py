"""Cutting a stream into batches, and sending a part of it past the work."""

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
    """Batches of one size, each with the number of items in it that count: the last one is filled up by repetition.

    If there is only one batch, it is not filled up.
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
    """(item, result) pairs in the order of the items, where only some of the items need work.

    Args:
        items: taken as `run` needs them.
        needs_run: whether an item goes through `run`.
        run: gives one result for each item of a stream, in order.
        otherwise: gives the result of an item that needs no work.
    """
    items, waiting = iter(items), deque[T]()

    def needy() -> Iterator[T]:
        for item in items:
            waiting.append(item)
            if needs_run(item):
                yield item

    for result in run(needy()):
        while not needs_run(waiting[0]):
            item = waiting.popleft()
            yield item, otherwise(item)
        yield waiting.popleft(), result
    for item in chain(waiting, items):
        assert not needs_run(item), "an item was left without a result"
        yield item, otherwise(item)
