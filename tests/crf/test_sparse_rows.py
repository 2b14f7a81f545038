"""Sums over listed rows: both ways of summing, and bags of several tables, against a loop."""

import numpy as np
import pytest
import torch

from pseudolabel.crf.sparse_rows import Bags, join_bags


def draw(seed, rows, bags, weighted=True):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 5, bags)
    sizes[-1] = 0
    members = rng.integers(0, rows, sizes.sum())
    weights = torch.from_numpy(rng.random(sizes.sum(), np.float32)) if weighted else None
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return Bags(torch.from_numpy(members).int(), torch.from_numpy(offsets).int(), weights)


def plain(bags, rows):
    sums = np.zeros((len(bags), rows.shape[1]))
    for bag in range(len(bags)):
        for place in range(int(bags.offsets[bag]), int(bags.offsets[bag + 1])):
            weight = 1.0 if bags.weights is None else float(bags.weights[place])
            sums[bag] += weight * rows[bags.members[place]].numpy().astype(float)
    return sums


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("columns", [1, 3, 21])
def test_both_ways_sum_up(weighted, columns):
    rows = torch.from_numpy(np.random.default_rng(1).random((9, columns), np.float32))
    bags = draw(0, 9, 12, weighted)
    for found in (bags.sum(rows), bags.sum_listed(rows)):
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, plain(bags, rows), atol=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_joined_bags_are_the_bags_of_each_table(weighted):
    tables = [torch.from_numpy(np.random.default_rng(n).random((n + 2, 3), np.float32)) for n in range(3)]
    bags = [draw(n, n + 2, 4 + n, weighted) for n in range(3)]
    joined = join_bags(bags, [len(table) for table in tables])
    expected = torch.cat([own.sum(table) for own, table in zip(bags, tables, strict=True)])
    assert len(joined) == len(expected) == 15
    assert torch.equal(joined.sum(torch.cat(tables)), expected)


def test_weights_are_scaled():
    rows = torch.ones(9, 2)
    for bags in (draw(0, 9, 12), draw(0, 9, 12, weighted=False)):
        factors = torch.full((len(bags.members),), 3.0)
        np.testing.assert_allclose(bags.scaled(factors).sum(rows), 3 * bags.sum(rows))
