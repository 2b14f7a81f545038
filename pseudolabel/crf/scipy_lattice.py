"""The permutohedral lattice of one image on one processor core: the filter of `lattice.py`, several times as fast.

Nothing is sorted: vertices are numbered by a hash table, in the order of the image's pixels, so that neighbours lie
near each other in memory. A column alone is filtered by SciPy's sparse products; rows of 2, 4 or 8 columns by torch's
`embedding_bag`, whose time is that of the rows, and by NumPy's `take`, which copies rows of these lengths as one item.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array

from pseudolabel.crf.lattice import blur_scale, number_vertices
from pseudolabel.crf.number_table import EMPTY, NumberTable
from pseudolabel.crf.sparse_rows import SparseRows


@dataclass(frozen=True)
class ScipyLattice:
    """A filter of values at N points in d dimensions, through the M lattice vertices around them.

    Attributes:
        weights: float32 (N, M + 1) with d + 1 entries in a row, the shares of the vertices around a point. The last
            column is empty; it is for missing vertices.
        neighbours: for each of the d + 1 axes the next and the previous vertex of each, int64 (M,), M where there is
            none.
    """

    weights: csr_array
    neighbours: list[tuple[np.ndarray, np.ndarray]]

    def filter(self, values: np.ndarray) -> np.ndarray:
        """Sums over all points, weighted by their kernel: float32 (N, C) from (N, C), quick for C of 1, 2, 4 and 8."""
        if values.shape[1] == 1:
            at_vertices = (self.weights.T @ values[:, 0])[:, None]
        else:
            at_vertices = self._splat.matmul(torch.from_numpy(values)).numpy()
        blurred, neighbour = np.empty_like(at_vertices), np.empty_like(at_vertices[:-1])
        for following, previous in self.neighbours:
            np.add(at_vertices, at_vertices, out=blurred)
            for vertices in (following, previous):
                blurred[:-1] += at_vertices.take(vertices, 0, out=neighbour, mode="clip")
            at_vertices, blurred = blurred, at_vertices
        if values.shape[1] == 1:
            return (self.weights @ at_vertices[:, 0])[:, None]
        return self._slice.matmul(torch.from_numpy(at_vertices)).numpy()

    @cached_property
    def _splat(self) -> SparseRows:
        return _rows(self.weights.T.tocsr())

    @cached_property
    def _slice(self) -> SparseRows:
        return _rows(self.weights)


def _rows(matrix: csr_array) -> SparseRows:
    return SparseRows(*(torch.from_numpy(array) for array in (matrix.indices, matrix.indptr, matrix.data)))


def build_scipy_lattice(points: torch.Tensor, factor: float) -> ScipyLattice:
    """The lattice of an image's points: `factor` times their kernel, symmetrically normalised.

    Args:
        points: float32 (N, d) on the CPU, scaled so that the kernel's sigma is 1.
        factor: the kernel's weight, at least 0.

    Raises:
        LatticeOverflowError: if there are too many points, or they are too far apart.
    """
    numbers, weights, steps = number_vertices([points])
    count, size = len(points), len(steps)
    entries = numbers.T.flatten().numpy()
    table = NumberTable(entries, count)
    is_first = table.positions == np.arange(len(entries), dtype=np.int32)
    names = is_first.cumsum(dtype=np.int32) - np.int32(1)
    distinct = entries[is_first]
    shares = weights.T[:count].flatten().numpy()
    indices, indptr = names.take(table.positions[: count * size]), np.arange(0, count * size + 1, size, dtype=np.int32)
    plain = csr_array((shares, indices, indptr), shape=(count, len(distinct) + 1))
    lattice = ScipyLattice(plain, _neighbours(distinct, steps))
    # The norm, one over the root of the sums, belongs to both points of a product, and so do the factors' roots.
    sums = lattice.filter(np.ones((count, 1), np.float32))[:, 0] * np.float32(blur_scale(size))
    norm = np.sqrt(np.float32(factor * blur_scale(size)) / (sums + np.float32(1e-20)))
    plain.data = (shares.reshape(count, size) * norm[:, None]).ravel()
    return lattice


def _neighbours(distinct: np.ndarray, steps: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The next and the previous vertex along each axis; `distinct` are the vertices' numbers."""
    table, missing = NumberTable(distinct, len(distinct)), len(distinct)
    pairs = []
    for step in steps:
        following = table.find(distinct + step).astype(np.int64)
        has_next = (following != EMPTY).nonzero()[0]
        previous = np.full(missing, missing)
        previous[following[has_next]] = has_next
        following[following == EMPTY] = missing
        pairs.append((following, previous))
    return pairs
