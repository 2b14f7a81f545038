"""How well attention follows objects: cohesion of self-attention, and affinities made of it."""

from dataclasses import dataclass

import torch


@dataclass
class Cohesion:
    """Sums over the queries that lie in an object.

    Attributes:
        queries: their number.
        share: sum of the shares of a query's attention that stay in the query's object.
        lift: sum of these shares, each divided by the object's share of the positions; 1 per query is chance.
    """

    queries: int = 0
    share: float = 0.0
    lift: float = 0.0

    def add(self, attention: torch.Tensor, inside: torch.Tensor) -> None:
        """Count one object.

        Args:
            attention: floating (n, n), rows sum to 1.
            inside: bool (n,), the positions of the object.
        """
        count = int(inside.sum())
        if not count:
            return
        share = float(attention[inside][:, inside].sum())
        self.queries += count
        self.share += share
        self.lift += share * len(inside) / count

    def means(self) -> tuple[float, float]:
        """Mean share and mean lift; NaN without queries."""
        if not self.queries:
            return float("nan"), float("nan")
        return self.share / self.queries, self.lift / self.queries


def squared_rows(attention: torch.Tensor) -> torch.Tensor:
    """Every entry squared, rows divided by their sums: sharper, but still (n, n) with rows that sum to 1."""
    squares = attention.square()
    return squares / squares.sum(1, keepdim=True)


def perfect_affinity(labels: torch.Tensor) -> torch.Tensor:
    """What self-attention could be at best: float32 (n, n), each row uniform over the positions of the same label.

    Args:
        labels: integer (n,), one label per position.
    """
    same = (labels[:, None] == labels[None]).float()
    return same / same.sum(1, keepdim=True)


def passes(affinity: torch.Tensor, values: torch.Tensor, count: int) -> list[torch.Tensor]:
    """`values` after 1, ..., `count` multiplications by an affinity.

    Args:
        affinity: float32 (n, n).
        values: float32 (n,).
        count: number of passes.
    """
    results = []
    for _ in range(count):
        values = affinity @ values
        results.append(values)
    return results
