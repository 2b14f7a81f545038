import threading
import time
from collections.abc import Iterator

import pytest

from pseudolabel.runtime.prefetch import prefetch


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_results_keep_the_order_of_the_items() -> None:
    def read(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(prefetch(read, range(30), threads=4, ahead=8)) == [item * item for item in range(30)]
    assert readers() == []


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_few_items(threads: int) -> None:
    assert list(prefetch(str, [], threads, ahead=2)) == []
    assert list(prefetch(str, [1], threads, ahead=2)) == ["1"]


def test_reads_ahead_are_limited() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = prefetch(lambda item: item, items(), threads=2, ahead=5)
    for got in range(20):
        assert next(results) == got
        assert len(taken) <= got + 6
    results.close()
    assert readers() == []


def test_an_exception_takes_the_place_of_its_result() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = prefetch(read, range(10), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert readers() == []


def test_an_exception_of_the_items() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise RuntimeError("the list broke")

    with pytest.raises(RuntimeError, match="the list broke"):
        list(prefetch(lambda item: item, items(), threads=2, ahead=4))
    assert readers() == []


def test_threads_read_in_parallel() -> None:
    """Three reads that wait for each other finish only if they run in parallel."""
    together = threading.Barrier(3, timeout=60)
    assert list(prefetch(lambda item: (together.wait(), item)[1], range(3), threads=3, ahead=3)) == [0, 1, 2]
