"""DiffSeg (Tian et al. 2024): self-attention of all resolutions, merged into segments, and named by cross-attention."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pseudolabel.config import DiffSegConfig
from pseudolabel.diffusion.layers import attention_layers, numbered
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.recording import by_stride, read_attention
from pseudolabel.errors import SettingError
from pseudolabel.methods.precision import full_precision
from pseudolabel.score_maps import square

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Queries and keys, each (B, heads, n, d), of the self-attention layers of one resolution."""

# Values per step of a larger computation: on a CPU few enough to stay in the cache, else enough to make the cost of
# starting a step small.
CPU_CHUNK, CHUNK = 2**21, 2**24
MOST_ANCHORS = 64  # per row of the grid; in a smaller map some of them coincide
FLOOR = torch.finfo(torch.float32).tiny  # smallest value whose logarithm is taken
GROUP = 2**24  # values of aggregated attention held at once: one image at 64 x 64


class AggregatedAttention:
    """Aggregated attention of images from one forward pass without noise."""

    def __init__(self, model: DiffusionModel, config: DiffSegConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if one of them is out of range or does not fit this model.
        """
        self.model, self.config = model, config
        layers = attention_layers(model.unet, model.vae_stride)
        self.self_layers = [layer for layer in layers if layer.kind == "self"]
        if config.self_layers:
            self.self_layers = numbered(layers, "self", config.self_layers, "diffseg.self_layers")
        self.cross_layers = [layer for layer in layers if layer.kind == "cross"]
        self.side = model.image_size // min(layer.stride for layer in self.self_layers)
        _check(config, self.side, len(model.alphas_cumprod))
        self.empty = model.encode_text([""])

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Aggregated self-attention (Eq. 3), for a few images at a time to bound memory.

        Args:
            latents: (B, c, h, w) scaled latents.

        Yields:
            float32 (G, n * n, n * n), the next G images: row p is a distribution over the n x n positions.
        """
        model = self.model
        no_text = self.empty.expand(len(latents), -1, -1)
        recording = read_attention(model, latents, self.config.timestep, no_text, self.self_layers)
        group = max(1, GROUP // self.side**4)
        for start in range(0, len(latents), group):
            chosen = slice(start, start + group)
            levels = by_stride(recording.queries_keys).values()
            yield aggregate([[(q[chosen], k[chosen]) for q, k in level] for level in levels], self.config.weights)

    @torch.inference_mode()
    def text_maps(self, latents: torch.Tensor, embeddings: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
        """Cross-attention of prompts' tokens (Eq. 8), summed over the layers of a resolution.

        Args:
            latents: (B, c, h, w) scaled latents.
            embeddings: (B, rows, width) text encodings of the images' prompts.
            weights: (B, C, tokens) how much each token counts in each class's map.

        Returns:
            float32 (B, C, side, side), one for each resolution.
        """
        weights = self.model.upload(weights)
        recording = read_attention(self.model, latents, self.config.timestep, embeddings, self.cross_layers, weights)
        return [square(torch.stack(maps).sum(0)) for maps in by_stride(recording.cross).values()]


def aggregate(levels: Sequence[Layers], weights: str) -> torch.Tensor:
    """Sum of attention over resolutions (Eqs. 2 and 3), weighted in proportion to the maps' side.

    Each map is enlarged bilinearly and scaled to sum 1. The map of a position at a lower resolution counts for all
    positions of the highest resolution inside it.

    Args:
        levels: the self-attention layers of each resolution.
        weights: `per_resolution` counts the mean of a resolution's layers once, `per_tensor` counts every layer.

    Returns:
        float32 (B, n * n, n * n) for the highest resolution n; rows sum to 1.
    """
    if weights == "per_tensor":
        levels = [[layer] for level in levels for layer in level]
    sides = [_side(level[0][0].shape[2]) for level in levels]
    side, total = max(sides), torch.zeros(())
    for own, level in zip(sides, levels, strict=True):
        maps = _enlarge(mean_attention(level), side)
        if own != side:
            maps = maps[:, _nearest(own, side, maps.device)]
        total = total.to(maps.device) + maps.mul_(own / sum(sides))
    return total.div_(total.sum(-1, keepdim=True))


def mean_attention(layers: Layers) -> torch.Tensor:
    """Mean over heads and layers of softmax(Q K^T / sqrt d), a few rows at a time: float32 (B, n, n)."""
    images, heads, count, width = layers[0][0].shape
    total = torch.zeros(images, count, count, device=layers[0][0].device)
    rows = _steps(images * heads * count, total.device)
    for query, key in layers:
        scaled, keys = query.float() * width**-0.5, key.float().mT
        for start in range(0, count, rows):
            chosen = slice(start, start + rows)
            total[:, chosen] += (scaled[:, :, chosen] @ keys).softmax(-1).mean(1)
    return total.div_(len(layers))


@full_precision()
def merge(maps: torch.Tensor, config: DiffSegConfig) -> list[torch.Tensor]:
    """Iterative attention merging (Algorithm 1).

    Args:
        maps: float32 (B, n * n, n * n); rows are distributions.
        config: for anchors, threshold, iterations, merging and precision.

    Returns:
        float64 (P, n, n) proposals of each image, in the order of the anchors that they grew from.
    """
    anchors = anchor_positions(_side(maps.shape[-1]), config.anchors).to(maps.device)
    rounded = config.precision == "float16"
    proposals = [first.double() for first in _gather(maps, anchors, config.threshold, rounded)]
    for _ in range(config.iterations - 1):
        proposals = [_merge_alike(rows, config.threshold, config.merging == "strict") for rows in proposals]
    return [square(rows) for rows in proposals]


def anchor_positions(side: int, count: int) -> torch.Tensor:
    """Flat positions of a count x count grid in a side x side map, row by row: int64 (count * count,)."""
    line = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * (side - 1)).long()
    return (line[:, None] * side + line).flatten()


def _gather(maps: torch.Tensor, anchors: torch.Tensor, threshold: float, rounded: bool) -> torch.Tensor:
    """First pass: for each anchor the mean of all maps (B, N, N) closer to its own than the threshold: (B, A, N).

    `rounded` compares the maps rounded to float16, as the released code does, but computes in float32, where the
    released code computes in float16.
    """

    def compared(positions: torch.Tensor | slice) -> torch.Tensor:
        return maps[:, positions].half().float() if rounded else maps[:, positions]

    own = compared(anchors)
    near = torch.zeros(own.shape, device=maps.device)
    rows = _steps(len(maps) * maps.shape[-1], maps.device)
    for start in range(0, maps.shape[1], rows):
        chosen = slice(start, start + rows)
        near[:, :, chosen] = (divergences(own, compared(chosen)) < threshold).float()
    # In spite of rounding, a map is always close to itself.
    near[:, torch.arange(len(anchors), device=maps.device), anchors] = 1
    return (near @ maps) / near.sum(-1, keepdim=True)


def _merge_alike(proposals: torch.Tensor, threshold: float, strict: bool) -> torch.Tensor:
    """A further pass: each proposal (P, N) not yet merged is replaced by the mean of those closer than the threshold.

    A merged proposal starts no mean. In the released code it still counts in later means;
    with `strict`, as in Algorithm 1, it does not.
    """
    near = (divergences(proposals, proposals) < threshold).fill_diagonal_(True).cpu().numpy()
    left, groups = np.ones(len(near), bool), []
    for seed, row in enumerate(near):
        if left[seed]:
            groups.append(row & left if strict else row)
            left &= ~row
    members = torch.from_numpy(np.stack(groups)).to(proposals)
    return (members @ proposals) / members.sum(-1, keepdim=True)


def divergences(maps: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Symmetric KL divergence D (Eq. 5), half the sum of both directions, of every pair of distributions.

    2 D = sum p log p + sum q log q - p . log q - log p . q, the last two as matrix products.

    Args:
        maps: (..., P, N).
        others: (..., Q, N).

    Returns:
        (..., P, Q); values are clamped to float32's smallest normal number before taking logarithms.
    """
    log, other_log = _log(maps), _log(others)
    entropies = (maps * log).sum(-1)[..., :, None] + (others * other_log).sum(-1)[..., None, :]
    return (entropies - maps @ other_log.mT - log @ others.mT) / 2


def _log(maps: torch.Tensor) -> torch.Tensor:
    """Logarithm of N p; since p sums to 1, the factor N changes no divergence, and small values keep more digits."""
    return maps.clamp(min=FLOOR).log_().add_(math.log(maps.shape[-1]))


def suppress(proposals: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Non-maximum suppression (Eq. 6): the proposal that is largest at each pixel, the first one in a tie.

    Args:
        proposals: floating (P, n, n), enlarged bilinearly (corners not aligned).
        size: (height, width) of the labels.

    Returns:
        int64 (height, width) in 0..P-1.
    """
    count = _steps(size[0] * size[1], proposals.device)
    best = torch.full(size, -math.inf, dtype=proposals.dtype, device=proposals.device)
    labels = torch.zeros(size, dtype=torch.int64, device=proposals.device)
    for start in range(0, len(proposals), count):
        large = F.interpolate(proposals[None, start : start + count], size, mode="bilinear", align_corners=False)
        value, number = large[0].max(0)
        labels = torch.where(value > best, number + start, labels)
        best = torch.maximum(value, best)
    return labels


def name_segments(labels: torch.Tensor, text_maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """The class of each segment: the one whose cross-attention has the largest mean inside (Eqs. 9 to 11).

    Args:
        labels: int64 (H, W), segments 0..K-1.
        text_maps: float32 (C, side, side) maps of the classes, one for each resolution.

    Returns:
        int64 (K,) in 0..C-1.
    """
    flat, size = labels.flatten(), tuple(labels.shape)
    pixels = flat.bincount()
    means = []
    for levels in zip(*text_maps, strict=True):
        resized = (F.interpolate(level[None, None], size, mode="bilinear", align_corners=False) for level in levels)
        total = sum(resized, torch.zeros((), device=labels.device)).flatten().double()
        means.append(flat.bincount(total / total.sum()) / pixels)
    return torch.stack(means).argmax(0)


def _enlarge(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear on the last axis's square, each map scaled to sum 1: (B, n, m) to (B, n, side * side)."""
    if maps.shape[-1] != side**2:
        maps = F.interpolate(square(maps), (side, side), mode="bilinear", align_corners=False).flatten(2)
    return maps.div_(maps.sum(-1, keepdim=True))


def _nearest(own: int, side: int, device: torch.device) -> torch.Tensor:
    """The position at the lower resolution `own` that contains each of the highest: int64 (side * side,)."""
    line = torch.arange(side, device=device) * own // side
    return (line[:, None] * own + line).flatten()


def _steps(values: int, device: torch.device) -> int:
    """Number of rows per step, for rows of `values` values."""
    return max(1, (CPU_CHUNK if device.type == "cpu" else CHUNK) // values)


def _side(count: int) -> int:
    return math.isqrt(count)


def _check(config: DiffSegConfig, side: int, steps: int) -> None:
    if not 0 <= config.timestep < steps:
        raise SettingError(f"`diffseg.timestep` {config.timestep}: give one from 0 to {steps - 1}")
    if not 1 <= config.anchors <= MOST_ANCHORS:
        raise SettingError(f"`diffseg.anchors` {config.anchors}: give 1 to {MOST_ANCHORS} per row of the grid")
    if config.iterations < 1 or config.threshold <= 0:
        raise SettingError(
            f"`diffseg.iterations` {config.iterations}, `diffseg.threshold` {config.threshold}: give at least one pass "
            "and a threshold greater than 0"
        )
    if not 0 <= config.clusters <= side**2:
        raise SettingError(
            f"`diffseg.clusters` {config.clusters}: give 0, for the number of the image's labels, or 1 to {side**2}"
        )
