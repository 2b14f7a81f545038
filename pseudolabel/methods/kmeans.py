"""K-means with k-means++ starts, for several images and several starts at once."""

import math
from collections.abc import Sequence

import torch

from pseudolabel.methods.precision import full_precision

ITERATIONS = 300
TOLERANCE = 1e-4  # times the points' mean variance: centres that move less in total have converged


@torch.inference_mode()
def kmeans(
    points: torch.Tensor, clusters: int, generators: Sequence[torch.Generator], restarts: int = 1
) -> torch.Tensor:
    """Cluster the points of each image separately, keeping the best of several starts.

    Args:
        points: floating (B, n, d).
        clusters: K; where there are fewer distinct points, some clusters stay empty.
        generators: one per image, on the CPU, so that the starts of an image do not depend on other images.
        restarts: number of starts.

    Returns:
        int64 (B, n) labels in 0..K-1.

    Raises:
        ValueError: if K is not in 1..n or there are not as many generators as images.
    """
    if not 1 <= clusters <= points.shape[1] or len(generators) != len(points):
        raise ValueError(f"{clusters} clusters and {len(generators)} generators for points {tuple(points.shape)}")
    # Distances are most precise near the origin.
    points = points - points.mean(1, keepdim=True)
    labels, inertia = lloyd(points, plus_plus(points, clusters, generators, restarts))
    return labels[torch.arange(len(points), device=points.device), inertia.argmin(1)]


@full_precision()
def plus_plus(
    points: torch.Tensor, clusters: int, generators: Sequence[torch.Generator], restarts: int
) -> torch.Tensor:
    """Initial centres by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Every further centre is the best of 2 + log K points drawn with probability proportional to the squared distance
    from the centres so far.

    Args:
        points: floating (B, n, d).
        clusters: K.
        generators: one per image, on the CPU.
        restarts: R, the number of independent starts.

    Returns:
        (B, R, K, d), all of them points.
    """
    count, trials = points.shape[1], 2 + int(math.log(clusters))
    drawn = [torch.rand(restarts, clusters, trials, generator=generator) for generator in generators]
    uniform = torch.stack(drawn).to(points)
    first = (uniform[:, :, 0, :1] * count).long()
    chosen = [first]
    nearest = _squared_distances(points, first)[:, :, 0]
    for number in range(1, clusters):
        cumulated = nearest.cumsum(-1)
        # The largest draw may point past the last point.
        tried = torch.searchsorted(cumulated, uniform[:, :, number] * cumulated[..., -1:]).clamp(max=count - 1)
        distances = torch.minimum(nearest[:, :, None], _squared_distances(points, tried))
        best = distances.sum(-1).argmin(-1, keepdim=True)
        chosen.append(tried.gather(2, best))
        nearest = distances.take_along_dim(best[..., None], 2)[:, :, 0]
    return _pick(points, torch.cat(chosen, 2))


def _pick(points: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Points (B, R, K, d) by their indices (B, R, K)."""
    images = torch.arange(len(points), device=points.device)[:, None, None]
    return points[images, indices]


def _squared_distances(points: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """(B, R, K, n) of the points (B, n, d) from those with the indices (B, R, K)."""
    products = (_pick(points, indices).flatten(1, 2) @ points.mT).unflatten(1, indices.shape[1:])
    squares = points.square().sum(-1)
    own = squares[:, None].expand(-1, indices.shape[1], -1).gather(2, indices)
    return (own[..., None] + squares[:, None, None] - 2 * products).clamp(min=0)


@full_precision()
def lloyd(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from given centres, until no label changes or the centres hardly move.

    A cluster that loses all its points gets one of the points farthest from their centres.

    Args:
        points: floating (B, n, d).
        centres: (B, R, K, d), R starts per image.

    Returns:
        int64 (B, R, n) labels in 0..K-1, and (B, R) sums of squared distances from the labels' centres.
    """
    squares = points.square().sum(-1)
    tolerance = TOLERANCE * points.var(1, correction=0).mean(-1)[:, None]
    done = torch.zeros(centres.shape[:2], dtype=torch.bool, device=points.device)
    labels, distances = _assign(points, squares, centres)
    for _ in range(ITERATIONS):
        moved = torch.where(done[..., None, None], centres, _means(points, labels, distances, centres))
        shift = (moved - centres).square().sum((-2, -1))
        centres, before = moved, labels
        labels, distances = _assign(points, squares, centres)
        done |= (labels == before).all(-1) | (shift <= tolerance)
        if done.all():
            break
    return labels, distances.sum(-1)


def _assign(points: torch.Tensor, squares: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest centre of every point, the first of several, and the squared distance from it, both (B, R, n)."""
    products = (points @ centres.flatten(1, 2).mT).unflatten(2, centres.shape[1:3])
    nearest = (centres.square().sum(-1)[:, None] - 2 * products).min(-1)
    distances = (nearest.values + squares[..., None]).clamp(min=0)
    return nearest.indices.mT, distances.mT


def _means(points: torch.Tensor, labels: torch.Tensor, distances: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Means of the labels' points: (B, R, K, d)."""
    members = torch.nn.functional.one_hot(labels, centres.shape[2]).mT.to(points)
    counts = members.sum(-1)
    for image, start in (counts == 0).any(-1).nonzero().tolist():
        _fill_empty(members[image, start], labels[image, start], distances[image, start])
    sums = (members.flatten(1, 2) @ points).unflatten(1, centres.shape[1:3])
    counts = members.sum(-1, keepdim=True)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centres)


def _fill_empty(members: torch.Tensor, labels: torch.Tensor, distances: torch.Tensor) -> None:
    """Move the points farthest from their centres to the clusters (K, n) that have none, in place."""
    empty = (members.sum(-1) == 0).nonzero()[:, 0]
    farthest = distances.topk(len(empty))
    for cluster, point, distance in zip(empty, farthest.indices, farthest.values, strict=True):
        if distance > 0:
            members[labels[point], point] = 0
            members[cluster, point] = 1
