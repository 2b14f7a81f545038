"""An ordered parallel map that computes results before they are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """`map_ahead` in a new pool of threads."""
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="reader") as pool:
        try:
            yield from map_ahead(pool, function, items, ahead)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Map in a pool, in the order of the items; at most `ahead` further items are read before a result is returned.

    An exception of `function` is raised in place of its result.
    """
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
