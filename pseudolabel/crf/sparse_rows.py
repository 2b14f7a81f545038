"""Weighted sums over listed rows, in a fixed order: the one operation that filtering on a lattice is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix of B rows in CSR layout; each product is summed in the order of its entries.

    Results are therefore equal to the last bit in every run.

    Attributes:
        indices: int32 (K,), columns of the entries, row by row.
        indptr: int32 (B + 1,), where each row begins in `indices`, and K.
        data: float32 (K,), the entries, or None where all are 1.
    """

    indices: torch.Tensor
    indptr: torch.Tensor
    data: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def matmul(self, values: torch.Tensor) -> torch.Tensor:
        """The product with float32 (R, L) values: float32 (B, L), zero where a row is empty."""
        if values.is_cuda:
            return self.matmul_listed(values)
        return F.embedding_bag(
            self.indices, values, self.indptr, mode="sum", per_sample_weights=self.data, include_last_offset=True
        )

    def scaled(self, factors: torch.Tensor) -> "SparseRows":
        """The same matrix with each entry times its factor, float32 (K,)."""
        return replace(self, data=factors if self.data is None else self.data * factors)

    def matmul_listed(self, values: torch.Tensor) -> torch.Tensor:
        """`matmul` with the needed values gathered first.

        It keeps all threads of a CUDA warp busy, where embedding_bag's kernel gives a warp of 32 threads to each row,
        and two labels use two of them. One thread adds up a column of a row from its first entry to its last.
        """
        listed = values.index_select(0, self.indices)
        if self.data is not None:
            listed *= self.data[:, None]
        return torch.segment_reduce(listed, "sum", offsets=self.indptr, unsafe=True, initial=0)


def stack_rows(parts: Sequence[SparseRows], columns: Sequence[int]) -> SparseRows:
    """The block-diagonal matrix of several.

    Args:
        parts: the blocks.
        columns: how many columns each block has.
    """
    first_columns = accumulate(columns, initial=0)
    first_entries = list(accumulate((len(own.indices) for own in parts), initial=0))
    indptr = [own.indptr[:-1] + first for own, first in zip(parts, first_entries, strict=False)]
    end = indptr[0].new_tensor([first_entries[-1]])
    data = [own.data for own in parts if own.data is not None]
    return SparseRows(
        indices=torch.cat([own.indices + first for own, first in zip(parts, first_columns, strict=False)]),
        indptr=torch.cat([*indptr, end]),
        data=torch.cat(data) if data else None,
    )
