"""Gaussian filtering on the permutohedral lattice (Adams, Baek and Davis 2010), as tensor operations on many images.

The arithmetic follows, step by step, the C++ that pydensecrf wraps, so that both give the same labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch

from pseudolabel.crf.sparse_rows import SparseRows, stack_rows
from pseudolabel.errors import LatticeOverflowError

# On x86 the C++ takes four points at a time and makes up the number with points at the origin. They carry no value, but
# the vertices around the origin become part of the lattice, and blurring passes through them.
BLOCK = 4
LARGEST_COORDINATE = 2**20  # up to here, float32 is wrong by no more than an eighth
INT32_END, INT64_END = 2**31, 2**63


@dataclass(frozen=True)
class Lattice:
    """A filter of values at N points in d dimensions, through the M lattice vertices around them.

    Attributes:
        splat: (M + 1, N) rows: the points that each vertex gathers. The last row is empty; it is for missing
            vertices, and stays zero.
        blur: for each of the d + 1 axes (M + 1, M + 1) rows of four entries: the vertex twice and its two neighbours.
        slice: (N, M + 1) rows: the vertices of the simplex around each point.
    """

    splat: SparseRows
    blur: tuple[SparseRows, ...]
    slice: SparseRows

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over all points of the same image, weighted by their Gaussian kernel: float32 (N, L) from (N, L)."""
        values = self.splat.matmul(values)
        for axis in self.blur:
            values = axis.matmul(values)
        return self.slice.matmul(values)

    def normalised(self, factor: float) -> "Lattice":
        """The kernel times `factor`, and divided by the roots of its sums at both points (symmetric normalisation)."""
        ones = torch.ones(len(self.slice), 1, device=self.slice.indices.device)
        norm = (self.filter(ones).squeeze(1) + 1e-20).rsqrt()
        vertices = len(self.slice.indices) // len(norm)
        return Lattice(
            self.splat.scaled(norm[self.splat.indices]),
            self.blur,
            self.slice.scaled((factor * norm).repeat_interleave(vertices)),
        )


def join_lattices(lattices: Sequence[Lattice]) -> Lattice:
    """One lattice over the points of several, which do not see each other."""
    points = [len(lattice.slice) for lattice in lattices]
    vertices = [len(lattice.splat) for lattice in lattices]
    return Lattice(
        splat=stack_rows([lattice.splat for lattice in lattices], points),
        blur=tuple(stack_rows(axes, vertices) for axes in zip(*(lattice.blur for lattice in lattices), strict=True)),
        slice=stack_rows([lattice.slice for lattice in lattices], vertices),
    )


def build_lattice(images: Sequence[torch.Tensor]) -> Lattice:
    """The lattice of several images' points; images do not affect each other.

    Args:
        images: float32 (n, d) of each image, points scaled so that the kernel's sigma is 1.

    Raises:
        LatticeOverflowError: if there are too many points, or they are too far apart.
    """
    numbers, weights, steps = number_vertices(images)
    return _connect(numbers.T.flatten(), weights.T.flatten(), steps, sum(len(points) for points in images))


def number_vertices(images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The vertices around each point of several images, and around one point at the origin where the C++ has some.

    Args:
        images: float32 (n, d) of each image, points scaled so that the kernel's sigma is 1.

    Returns:
        int64 (d + 1, N) numbers of the vertices, equal for the same vertex of the same image only; float32 (d + 1, N)
        their shares of the point; how much a number grows by a step along each of the d + 1 axes. N is all points and,
        after them, the origin's.

    Raises:
        LatticeOverflowError: if there are too many points, or they are too far apart.
    """
    device, dimensions = images[0].device, images[0].shape[1]
    counts = torch.tensor([len(points) for points in images], device=device)
    total = sum(len(points) for points in images)
    # The largest possible number of entries: d + 1 separate vertices per point, each with four entries in a blur.
    if 4 * (total + len(images)) * (dimensions + 1) >= INT32_END:
        raise LatticeOverflowError(f"{total} pixels are too many for one lattice of {dimensions} dimensions")
    incomplete = torch.tensor([number for number, own in enumerate(images) if len(own) % BLOCK], device=device)
    of_image = torch.arange(len(images), device=device).repeat_interleave(counts, output_size=total)
    origin = torch.zeros(len(incomplete), dimensions, device=device)
    rounded, ranks, weights = find_simplices(torch.cat([*images, origin]).T)
    numbers, steps = _number(rounded, ranks, torch.cat([of_image, incomplete.long()]), len(images))
    return numbers, weights, steps


def blur_scale(size: int) -> float:
    """What undoes the doubling by a blur along `size` axes, which is exact, times the paper's factor of the kernel."""
    return 0.5**size / (1 + 0.5 ** (size - 1))


def find_simplices(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The simplex around each point (Adams et al., section 3.1).

    Args:
        points: float32 (d, N), scaled so that the kernel's sigma is 1.

    Returns:
        float32 (d + 1, N) integer coordinates of the nearest vertex of remainder 0; int64 (d + 1, N) ranks of the
        coordinates' distances from it, largest first; float32 (d + 1, N) barycentric weights of the simplex's vertices
        of remainders 0 to d.

    Raises:
        LatticeOverflowError: if a coordinate is too large to be rounded in float32, or not finite.
    """
    dimensions = len(points)
    size = dimensions + 1
    elevated = _elevate(points)
    if not elevated.abs().amax() < LARGEST_COORDINATE:  # also where it is not a number
        raise LatticeOverflowError("the pixels are too far apart for the kernel's sigma")
    per_size = float(torch.tensor(1.0) / size)
    whole = (elevated * per_size).round()
    rounded = whole * size
    beyond = elevated - rounded
    ranks = _ranks(beyond)
    # Rounding may leave the plane in which coordinates sum to zero; those of extreme ranks bring the point back.
    ranks += whole.sum(0).to(ranks.dtype)
    back = size * ((ranks < 0).to(ranks.dtype) - (ranks > dimensions).to(ranks.dtype))
    ranks += back
    rounded += back
    ranks = ranks.long()
    shares = torch.empty_like(elevated).scatter_(0, ranks, (elevated - rounded) * per_size).flip(0)
    weights = shares.clone()
    weights[1:] -= shares[:-1]
    weights[0] += 1 - shares[-1]
    return rounded, ranks, weights


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Place of each value in its column, the largest first and equal ones from the last up: int8 (R, N) of (R, N)."""
    ranks = torch.zeros_like(values, dtype=torch.int8)
    for axis, own in enumerate(values):
        for other in range(axis + 1, len(values)):
            is_smaller = own < values[other]
            ranks[axis] += is_smaller
            ranks[other] += ~is_smaller
    return ranks


def _elevate(points: torch.Tensor) -> torch.Tensor:
    """Points of d dimensions in the plane of d + 1 coordinates that sum to zero: float32 (d + 1, N)."""
    dimensions = len(points)
    sigma = float(torch.tensor(math.sqrt(2 / 3) * (dimensions + 1)))  # of splat, blur and slice together
    elevated = []
    total = torch.zeros_like(points[0])
    for axis in range(dimensions, 0, -1):
        scaled = points[axis - 1] * (1 / math.sqrt((axis + 1) * axis) * sigma)
        elevated.append(total - axis * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(elevated)])


def _number(
    rounded: torch.Tensor, ranks: torch.Tensor, images: torch.Tensor, count: int
) -> tuple[torch.Tensor, list[int]]:
    """Name every vertex by one number; d of its coordinates are the digits, its image the first of them.

    Returns:
        int64 (d + 1, N) numbers of the vertices of each point's simplex, and how much a number grows by a step along
        each of the d + 1 axes.
    """
    dimensions = len(rounded) - 1
    digits = rounded[:dimensions]
    low, high = torch.stack([digits.amin(1), digits.amax(1)]).tolist()
    # Vertices are up to d from the nearest one, and their neighbours up to d from them.
    room = [int(top) - int(bottom) + 1 + 4 * dimensions for bottom, top in zip(low, high, strict=True)]
    if math.prod(room) * count >= INT64_END:
        raise LatticeOverflowError("the pixels spread over a lattice too large to be numbered")
    values = list(accumulate(room, mul, initial=1))
    value = torch.tensor(values[:dimensions], device=rounded.device)[:, None]
    start = torch.tensor(low, device=rounded.device).long()[:, None] - 2 * dimensions
    first = ((digits.long() - start) * value).sum(0) + images * values[dimensions]
    size = dimensions + 1
    back = sum(values[:dimensions])
    # From one remainder to the next, a vertex moves by one along all axes and by -size along that of the next rank.
    by_rank = torch.zeros_like(ranks).scatter_(0, ranks, torch.cat([value, value[:1] * 0]).expand_as(ranks))
    numbers = [first]
    for rank in range(dimensions, 0, -1):
        numbers.append(numbers[-1] + (back - size * by_rank[rank]))
    return torch.stack(numbers), [size * step - back for step in values[:dimensions]] + [-back]


def _connect(numbers: torch.Tensor, weights: torch.Tensor, steps: list[int], points: int) -> Lattice:
    """The lattice from vertices' numbers, int64 (N (d + 1)), point by point; those beyond `points` carry no value."""
    size = len(steps)
    in_order, order = numbers.sort(stable=True)
    is_first = torch.ones_like(in_order, dtype=torch.bool)
    is_first[1:] = in_order[1:] != in_order[:-1]
    distinct = in_order[is_first]
    vertices = torch.empty_like(order, dtype=torch.int32)
    vertices[order] = is_first.cumsum(0, dtype=torch.int32) - 1
    begins = is_first.nonzero().squeeze(1)
    owners = order // size
    has_value = owners < points
    splat = SparseRows(
        indices=torch.where(has_value, owners, 0).int(),
        indptr=torch.cat([begins, begins.new_full((2,), len(order))]).int(),
        data=torch.where(has_value, weights[order], 0.0),
    )
    slices = SparseRows(
        indices=vertices[: points * size],
        indptr=torch.arange(0, points * size + 1, size, dtype=torch.int32, device=numbers.device),
        data=weights[: points * size] * blur_scale(size),
    )
    return Lattice(splat, tuple(_neighbours(distinct, step) for step in steps), slices)


def _neighbours(distinct: torch.Tensor, step: int) -> SparseRows:
    """Rows that blur along one axis with weights 1, 2, 1; `distinct` are the vertices' numbers, ascending."""
    missing = len(distinct)
    vertices = torch.arange(missing + 1, device=distinct.device)
    columns = [vertices, vertices]
    for wanted in (distinct + step, distinct - step):
        place = torch.searchsorted(distinct, wanted).clamp_(max=missing - 1)
        found = torch.where(distinct[place] == wanted, place, missing)
        columns.append(torch.cat([found, vertices[-1:]]))
    members = torch.stack(columns, 1).flatten().int()
    return SparseRows(members, torch.arange(0, len(members) + 1, 4, dtype=torch.int32, device=distinct.device))
