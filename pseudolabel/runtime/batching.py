"""Cutting a stream into batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Tuples of `size` items, the last one maybe shorter (itertools has this from Python 3.12 on)."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def static_batches(items: Iterable[T], size: int) -> Iterator[tuple[tuple[T, ...], int]]:
    """Batches of one size with the number of their own items: the last one is filled up by repetition.

    Where there is only one batch, it is as large as it is.
    """
    for number, batch in enumerate(batched(items, size)):
        missing = size - len(batch) if number else 0
        yield (*batch, *[batch[-1]] * missing), len(batch)
