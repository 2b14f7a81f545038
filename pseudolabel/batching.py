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
