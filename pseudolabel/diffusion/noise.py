"""Random numbers of an image, which depend on its key alone and not on the order of drawing."""

import hashlib

import torch


def generator_of(seed: int, purpose: str, key: str) -> torch.Generator:
    """A generator on the CPU whose state depends on the run's seed, the purpose and the image's key alone.

    Args:
        seed: of the run.
        purpose: what the numbers are for, so that two uses get different ones.
        key: of the image.
    """
    digest = hashlib.sha256(f"{seed}:{purpose}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_noise(seed: int, purpose: str, key: str, count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal values of `generator_of` the same arguments.

    Args:
        seed: of the run.
        purpose: what the values are for.
        key: of the image.
        count: number of tensors.
        shape: of each tensor.

    Returns:
        float32 (count, *shape) on the CPU.
    """
    return torch.randn(count, *shape, generator=generator_of(seed, purpose, key))
