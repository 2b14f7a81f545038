"""DiffSeg written plainly from its Algorithm 1 and from what its released code does: loops over 4-D float64 arrays.

Nothing here comes from `pseudolabel.methods`: it is what the fast path is checked against, and the baseline of
`python -m scripts.bench methods`.
"""

import math

import numpy as np
import torch

from tests.plain.diffsegmenter import Matrix, attend, encode_image, encode_text, pool_text

FLOOR = float(np.finfo(np.float32).tiny)


@torch.inference_mode()
def self_attention(model, image, timestep: int) -> list[np.ndarray]:
    """The mean over heads of each self-attention layer, (h, w, h, w), of an image fed without noise or text."""
    latent = encode_image(model, image, None)
    attention = attend(model, latent, timestep, encode_text(model, ""), pool_text(model, ""))
    return [tensor_4d(matrix) for matrix in attention if not matrix.is_cross]


def tensor_4d(matrix: Matrix) -> np.ndarray:
    over_heads = matrix.probabilities.float().mean(0).cpu().numpy().astype(np.float64)
    side = math.isqrt(len(over_heads))
    return over_heads.reshape(side, side, side, side)


def aggregate(tensors: list[np.ndarray], weights: str) -> np.ndarray:
    """Eqs. 2 and 3: (n, n, n, n). `per_resolution` averages a resolution's layers first, as released."""
    sides = sorted({len(tensor) for tensor in tensors}, reverse=True)
    if weights == "per_resolution":
        tensors = [np.mean([tensor for tensor in tensors if len(tensor) == side], 0) for side in sides]
    n = sides[0]
    total = np.zeros((n, n, n, n))
    for tensor in tensors:
        own = len(tensor)
        enlarged = bilinear(tensor, (n, n))
        enlarged = enlarged / enlarged.sum((2, 3), keepdims=True)
        for row in range(n):
            for column in range(n):
                total[row, column] += own * enlarged[row * own // n, column * own // n]
    return total / total.sum((2, 3), keepdims=True)


def bilinear(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The last two axes resized with half-pixel centres, repeating the border."""
    for axis, (old, new) in enumerate(zip(maps.shape[-2:], size, strict=True), start=maps.ndim - 2):
        lines = []
        for target in range(new):
            place = min(max((target + 0.5) * old / new - 0.5, 0), old - 1)
            low = math.floor(place)
            high, share = min(low + 1, old - 1), place - low
            lines.append((1 - share) * maps.take(low, axis) + share * maps.take(high, axis))
        maps = np.stack(lines, axis)
    return maps


def divergence(one: np.ndarray, other: np.ndarray) -> float:
    """Eq. 5."""
    log_one, log_other = np.log(np.maximum(one, FLOOR)), np.log(np.maximum(other, FLOOR))
    return (float(np.sum(one * (log_one - log_other))) + float(np.sum(other * (log_other - log_one)))) / 2


def proposals(tensor: np.ndarray, config) -> list[np.ndarray]:
    """Algorithm 1, or its released form: maps (n, n)."""
    n, merged = len(tensor), []
    maps = [tensor[row, column] for row in range(n) for column in range(n)]
    seen = [one.astype(np.float16).astype(np.float64) for one in maps] if config.precision == "float16" else maps
    for row in range(config.anchors):
        for column in range(config.anchors):
            y, x = (math.floor((k + 0.5) / config.anchors * (n - 1)) for k in (row, column))
            anchor = seen[y * n + x]
            alike = [one for one, own in zip(maps, seen, strict=True) if divergence(anchor, own) < config.threshold]
            merged.append(np.mean(alike, 0))
    for _ in range(config.iterations - 1):
        merged = (strict_pass if config.merging == "strict" else released_pass)(merged, config.threshold)
    return merged


def strict_pass(old: list[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Matched proposals are removed from the list."""
    left, new = list(old), []
    while left:
        seed = left[0]
        alike = [divergence(seed, one) < threshold for one in left]
        new.append(np.mean([one for one, near in zip(left, alike, strict=True) if near], 0))
        left = [one for one, near in zip(left, alike, strict=True) if not near]
    return new


def released_pass(old: list[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Matched proposals found no mean of their own, but count in those of others."""
    matched: set[int] = set()
    new = []
    for number, seed in enumerate(old):
        if number not in matched:
            alike = [index for index, one in enumerate(old) if divergence(seed, one) < threshold]
            matched.update(alike)
            new.append(np.mean([old[index] for index in alike], 0))
    return new


def segment(maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Eq. 6: which map is largest at each pixel, int (H, W)."""
    large = [bilinear(one, size) for one in maps]
    labels, best = np.zeros(size, int), large[0]
    for number, one in enumerate(large):
        labels[one > best] = number
        best = np.maximum(best, one)
    return labels


def name_segments(labels: np.ndarray, tensors: list[np.ndarray], columns: list[list[int]]) -> list[int]:
    """Eqs. 8 to 11: for each segment the number of the class with the largest mean of its map inside.

    `tensors` are the cross-attention layers' means over heads, (h * w, tokens); `columns` each class's tokens.
    """
    maps = []
    for tokens in columns:
        total = np.zeros(labels.shape)
        for tensor in tensors:
            side = math.isqrt(len(tensor))
            total += bilinear(tensor[:, tokens].mean(1).reshape(side, side), labels.shape)
        maps.append(total / total.sum())
    return [int(np.argmax([one[labels == segment].mean() for one in maps])) for segment in range(labels.max() + 1)]
