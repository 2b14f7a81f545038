"""Noise that belongs to an image, whoever draws it and whenever."""

import hashlib

import torch


def draw_noise(seed: int, purpose: str, key: str, count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal values that depend on the seed, the purpose and the image's key alone.

    Args:
        seed: of the run.
        purpose: what the values are for, so that two uses do not share them.
        key: the image's.
        count: how many tensors.
        shape: of each of them.

    Returns:
        float32 (count, *shape) on the CPU.
    """
    digest = hashlib.sha256(f"{seed}:{purpose}:{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(count, *shape, generator=generator)
