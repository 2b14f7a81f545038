"""Points of the two kernels: where a pixel is, and its colour."""

import torch

from pseudolabel.config import CrfConfig


def places(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Column and row of every pixel: int64 (height * width, 2)."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns).flip(1)


def appearance_points(image: torch.Tensor, config: CrfConfig) -> torch.Tensor:
    """Place and colour of an image's pixels, uint8 (H, W, 3), in the appearance kernel's sigmas: float32 (N, 5)."""
    place = places(image.shape[0], image.shape[1], image.device) / config.bilateral_sxy
    return torch.cat([place, image.flatten(0, 1) / config.bilateral_srgb], 1)
