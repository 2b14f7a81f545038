"""Cohesion and affinities against loops over positions."""

import math

import pytest
import torch

from pseudolabel.evaluation.affinity import Cohesion, passes, perfect_affinity, squared_rows


@pytest.fixture
def attention() -> torch.Tensor:
    return torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).softmax(1)


def test_cohesion_is_the_share_that_stays_inside(attention):
    cohesion, inside = Cohesion(), [1, 2, 4]
    mask = torch.tensor([index in inside for index in range(6)])
    cohesion.add(attention, mask)
    shares = [sum(float(attention[i, j]) for j in inside) for i in inside]
    share, lift = cohesion.means()
    assert share == pytest.approx(sum(shares) / 3)
    assert lift == pytest.approx(sum(shares) / 3 / (3 / 6))
    cohesion.add(attention, torch.tensor([True] + [False] * 5))
    more = [*shares, float(attention[0, 0])]
    assert cohesion.means() == pytest.approx((sum(more) / 4, (sum(shares) * 2 + more[3] * 6) / 4))


def test_uniform_attention_has_lift_one():
    cohesion = Cohesion()
    cohesion.add(torch.full((8, 8), 1 / 8), torch.arange(8) < 3)
    assert cohesion.means() == pytest.approx((3 / 8, 1))


def test_without_objects_there_is_no_cohesion(attention):
    cohesion = Cohesion()
    cohesion.add(attention, torch.zeros(6, dtype=torch.bool))
    assert all(math.isnan(value) for value in cohesion.means())


def test_squared_rows_sum_to_one(attention):
    found = squared_rows(attention)
    for i in range(6):
        total = sum(float(attention[i, j]) ** 2 for j in range(6))
        for j in range(6):
            assert float(found[i, j]) == pytest.approx(float(attention[i, j]) ** 2 / total)


def test_a_perfect_affinity_takes_the_mean_of_each_label():
    labels, values = torch.tensor([0, 3, 3, 0, 5]), torch.tensor([1.0, 2.0, 4.0, 7.0, 9.0])
    assert (perfect_affinity(labels) @ values).tolist() == pytest.approx([4, 3, 3, 4, 9])


def test_passes_are_powers(attention):
    values = torch.arange(6).float()
    found = passes(attention, values, 3)
    for count, result in enumerate(found, 1):
        torch.testing.assert_close(result, torch.linalg.matrix_power(attention, count) @ values)
