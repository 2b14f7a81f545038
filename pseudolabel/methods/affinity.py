"""Affinities of positions made of self-attention, and what they make of maps.

An affinity is a matrix (n, n) whose rows sum to 1. Plain attention is never held in memory; other affinities are made
in blocks of rows, once for all maps of a forward pass.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.errors import SettingError

VALUES = {"power": 2.0, "peaks": 0.1, "entropy": 0.015}  # where `affinity_value` is 0; CLIPer's and iSeg's, for VOC
TINY = torch.finfo(torch.float32).tiny
BLOCK = 2**22  # attention values of all heads that exist at once: 16 MiB in float32


def spread(query: torch.Tensor, key: torch.Tensor, maps: torch.Tensor, config: DiffSegmenterConfig) -> torch.Tensor:
    """`config.iterations` passes of `config.affinity` over maps: P^k c.

    Args:
        query, key: (B, heads, n, d).
        maps: float32 (B, K, n).
        config: the affinity, its value and the number of passes.

    Returns:
        float32 (B, K, n).
    """
    if config.affinity == "attention":
        for _ in range(config.iterations):
            maps = propagate(query, key, maps)
        return maps
    rows = []
    for own_query, own_key, own_maps in zip(query, key, maps, strict=True):
        matrix = affinity(own_query, own_key, config)
        for _ in range(config.iterations):
            own_maps = own_maps @ matrix.T
        rows.append(own_maps)
    return torch.stack(rows)


def check_affinity(config: DiffSegmenterConfig) -> None:
    """Raises SettingError if the affinity's value leaves nothing of the attention."""
    value = config.affinity_value
    if config.affinity == "peaks" and value >= 1:
        raise SettingError(
            f"`diffsegmenter.affinity_value` {value}: no entry would be a peak; give a value below 1, or 0 for "
            f"{VALUES['peaks']}"
        )


def propagate(query: torch.Tensor, key: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Mean over heads of softmax(Q K^T / sqrt d) c, without the attention matrix in memory.

    Args:
        query, key: (B, heads, n, d).
        maps: float32 (B, K, n).

    Returns:
        float32 (B, K, n).
    """
    # Rows sum to 1, so a constant passes through unchanged; without the mean, half precision keeps more digits.
    mean = maps.mean(-1, keepdim=True)
    width = query.shape[-1]
    results = []
    for own in (maps - mean).to(query.dtype).split(width, 1):
        columns = own.transpose(1, 2)[:, None].expand(-1, query.shape[1], -1, -1)
        # The fused kernels need values as wide as the keys: the maps are the first columns, the others are zeros.
        padded = F.pad(columns, (0, width - own.shape[1]))
        passed = F.scaled_dot_product_attention(query, key, padded)[..., : own.shape[1]]
        results.append(passed.float().mean(1).transpose(1, 2))
    return torch.cat(results, 1) + mean


def affinity(query: torch.Tensor, key: torch.Tensor, config: DiffSegmenterConfig) -> torch.Tensor:
    """An affinity of one image made of the mean A over heads of softmax(Q K^T / sqrt d).

    `power`: every entry to the power `config.affinity_value`. `peaks` (CLIPer): A divided by the largest value of each
    column, and entries less than the value set to 0. `entropy` (iSeg): B = A divided by the largest value of each
    column, then B + e log10(2.71828 B) with the value e, at least 0. In each case rows are divided by their sums; a row
    of zeros becomes the position itself.

    Args:
        query, key: (heads, n, d).
        config: the affinity and its value.

    Returns:
        float32 (n, n).
    """
    value = config.affinity_value or VALUES[config.affinity]
    matrix = torch.empty(query.shape[1], key.shape[1], device=query.device)
    for start, block in _attention_rows(query, key):
        matrix[start : start + len(block)] = block
    if config.affinity == "power":
        # Divided by the largest first: powers of small numbers would vanish.
        matrix.div_(matrix.amax(1, keepdim=True)).pow_(value)
    else:
        matrix.div_(matrix.amax(0, keepdim=True).clamp_min(TINY))  # a column may have underflowed to zeros
        if config.affinity == "peaks":
            matrix.masked_fill_(matrix < value, 0)
        else:
            _entropy_step(matrix, value)
    sums = matrix.sum(1, keepdim=True)
    matrix.diagonal().add_((sums[:, 0] == 0).float())
    return matrix.div_(matrix.sum(1, keepdim=True))


def _entropy_step(matrix: torch.Tensor, value: float) -> None:
    """B <- max(0, B + e log10(2.71828 B)) where B > 0, in place and in blocks of rows."""
    for rows in matrix.split(max(1, BLOCK // matrix.shape[1])):
        rows.copy_(torch.where(rows > 0, (rows + value * torch.log10(2.71828 * rows)).clamp_min(0), 0))


def _attention_rows(query: torch.Tensor, key: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """First row and float32 (rows, n) mean over heads of attention, block by block."""
    query, key = query.float(), key.float()  # rounding errors of half precision would be sharpened, too
    heads, count, width = query.shape
    size = max(1, BLOCK // (heads * key.shape[1]))
    for start in range(0, count, size):
        logits = (query[:, start : start + size] * width**-0.5) @ key.transpose(1, 2)
        yield start, logits.softmax(-1).mean(0)
