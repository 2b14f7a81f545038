import pytest

from pseudolabel.runtime.batching import static_batches


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
