"""Products with sparse rows: both implementations, and block-diagonal ones, against a loop."""

import numpy as np
import pytest
import torch

from pseudolabel.crf.sparse_rows import SparseRows, stack_rows


def draw(seed, rows, matrix, weighted=True):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 5, matrix)
    sizes[-1] = 0
    members = rng.integers(0, rows, sizes.sum())
    weights = torch.from_numpy(rng.random(sizes.sum(), np.float32)) if weighted else None
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return SparseRows(torch.from_numpy(members).int(), torch.from_numpy(offsets).int(), weights)


def plain(matrix, rows):
    sums = np.zeros((len(matrix), rows.shape[1]))
    for row in range(len(matrix)):
        for place in range(int(matrix.indptr[row]), int(matrix.indptr[row + 1])):
            weight = 1.0 if matrix.data is None else float(matrix.data[place])
            sums[row] += weight * rows[matrix.indices[place]].numpy().astype(float)
    return sums


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("columns", [1, 3, 21])
def test_both_directions_equal_matrix_products(weighted, columns):
    rows = torch.from_numpy(np.random.default_rng(1).random((9, columns), np.float32))
    matrix = draw(0, 9, 12, weighted)
    for found in (matrix.matmul(rows), matrix.matmul_listed(rows)):
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, plain(matrix, rows), atol=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_stacked_rows_equal_the_products_of_each_block(weighted):
    tables = [torch.from_numpy(np.random.default_rng(n).random((n + 2, 3), np.float32)) for n in range(3)]
    matrix = [draw(n, n + 2, 4 + n, weighted) for n in range(3)]
    joined = stack_rows(matrix, [len(table) for table in tables])
    expected = torch.cat([own.matmul(table) for own, table in zip(matrix, tables, strict=True)])
    assert len(joined) == len(expected) == 15
    assert torch.equal(joined.matmul(torch.cat(tables)), expected)


def test_weights_are_scaled():
    rows = torch.ones(9, 2)
    for matrix in (draw(0, 9, 12), draw(0, 9, 12, weighted=False)):
        factors = torch.full((len(matrix.indices),), 3.0)
        np.testing.assert_allclose(matrix.scaled(factors).matmul(rows), 3 * matrix.matmul(rows))
