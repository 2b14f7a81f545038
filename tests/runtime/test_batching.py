from collections.abc import Iterator

import pytest

from pseudolabel.runtime.batching import bypass, static_batches


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("", []),
        ("ab", [("ab", 2)]),
        ("abc", [("abc", 3)]),
        ("abcd", [("abc", 3), ("ddd", 1)]),
        ("abcdef", [("abc", 3), ("def", 3)]),
        ("abcdefgh", [("abc", 3), ("def", 3), ("ghh", 2)]),
    ],
)
def test_batches_have_one_size(items, expected):
    assert [("".join(batch), count) for batch, count in static_batches(items, 3)] == expected


@pytest.mark.parametrize("items", [[], [1, 3], [2, 4], [1, 2, 4, 3], [2, 1, 3, 4, 5, 6, 6]])
@pytest.mark.parametrize("ahead", [0, 2])
def test_items_that_skip_the_work_keep_their_order(items: list[int], ahead: int) -> None:
    """Even numbers go through `run`, which reads up to `ahead` of them before its first result."""

    def halve(numbers: Iterator[int]) -> Iterator[float]:
        taken: list[int] = []
        for number in numbers:
            taken.append(number)
            if len(taken) > ahead:
                yield taken.pop(0) / 2
        yield from (number / 2 for number in taken)

    found = list(bypass(items, lambda number: number % 2 == 0, halve, lambda _: -1))
    assert found == [(number, -1 if number % 2 else number / 2) for number in items]


def test_a_missing_result_is_an_error() -> None:
    with pytest.raises(AssertionError, match="without a result"):
        list(bypass([1, 2], lambda _: True, lambda numbers: iter([next(numbers)]), lambda _: -1))
