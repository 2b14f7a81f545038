"""Weighted sums over listed rows, in a fixed order: the one operation that filtering on a lattice is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Bags:
    """B lists of rows, each to be summed up in its order, so that the same bytes come out each time.

    Attributes:
        members: int32 (K,), numbers of rows, bag by bag.
        offsets: int32 (B + 1,), where each bag begins in `members`, and K.
        weights: float32 (K,) of the members, or None where all weigh 1.
    """

    members: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sum(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 (B, L) sums of float32 (R, L) rows; zero where a bag is empty."""
        if rows.is_cuda:
            return self.sum_listed(rows)
        weights = self.weights
        return F.embedding_bag(
            self.members, rows, self.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def scaled(self, factors: torch.Tensor) -> "Bags":
        """The same bags with each member's weight times its factor, float32 (K,)."""
        return replace(self, weights=factors if self.weights is None else self.weights * factors)

    def sum_listed(self, rows: torch.Tensor) -> torch.Tensor:
        """`sum` with the members' rows written out first.

        It keeps all threads of a CUDA warp busy, where embedding_bag's kernel gives a warp of 32 threads to each bag,
        and two labels use two of them. One thread adds up a bag's column from its first member to its last.
        """
        listed = rows.index_select(0, self.members)
        if self.weights is not None:
            listed *= self.weights[:, None]
        return torch.segment_reduce(listed, "sum", offsets=self.offsets, unsafe=True, initial=0)


def join_bags(bags: Sequence[Bags], rows: Sequence[int]) -> Bags:
    """Bags over the rows of several tables, put one below another.

    Args:
        bags: of each table.
        rows: how many rows each table has.
    """
    first_rows = accumulate(rows, initial=0)
    first_members = list(accumulate((len(own.members) for own in bags), initial=0))
    offsets = [own.offsets[:-1] + first for own, first in zip(bags, first_members, strict=False)]
    end = offsets[0].new_tensor([first_members[-1]])
    weights = [own.weights for own in bags if own.weights is not None]
    return Bags(
        members=torch.cat([own.members + first for own, first in zip(bags, first_rows, strict=False)]),
        offsets=torch.cat([*offsets, end]),
        weights=torch.cat(weights) if weights else None,
    )
