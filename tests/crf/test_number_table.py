"""The hash table against a dictionary; small tables collide often."""

import numpy as np
import pytest

from pseudolabel.crf.number_table import EMPTY, NumberTable


@pytest.mark.parametrize("distinct", [1, 40, 3000])
@pytest.mark.parametrize("count", [1, 2, 500, 5000])
@pytest.mark.parametrize("span", [3, 1000, 2**62])
def test_numbers_are_found_as_in_a_dictionary(count, span, distinct):
    rng = np.random.default_rng(count)
    numbers = rng.integers(-span, span, count)
    table = NumberTable(numbers, distinct)
    assert np.array_equal(numbers[table.positions], numbers)
    expected = dict(zip(numbers.tolist(), table.positions.tolist(), strict=True))
    assert [expected[number] for number in numbers.tolist()] == table.positions.tolist()
    wanted = np.concatenate([numbers, numbers + 1, rng.integers(-span, span, 300)])
    assert table.find(wanted).tolist() == [expected.get(number, EMPTY) for number in wanted.tolist()]
    assert len(set(table.positions.tolist())) == len(set(numbers.tolist()))
