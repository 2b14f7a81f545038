"""The image as DenseCRF is fed it."""

import numpy as np
import torch

from pseudolabel.config import CrfConfig

MEAN_BGR = np.array([104.008, 116.669, 122.675], np.float32)


def fed(image: np.ndarray, config: CrfConfig) -> torch.Tensor:
    """The image itself, or `wrapped`, as `config.image` has it: uint8 (H, W, 3) both ways, on the CPU."""
    # A copy, for torch and pydensecrf refuse read-only arrays, such as those that share a Pillow image's memory.
    return torch.from_numpy(np.array(wrapped(image) if config.image == "wrapped" else image, order="C"))


def wrapped(image: np.ndarray) -> np.ndarray:
    """CLIP-ES's CRF input: BGR less its mean, cast to uint8, where -1 becomes 255; uint8 (H, W, 3).

    Casting a negative float to an unsigned integer is undefined in C, so we cut to an integer first; that is what
    the cast did on the machines CLIP-ES ran on.

    Args:
        image: uint8 (H, W, 3), RGB.
    """
    shifted = image[..., ::-1].astype(np.float32) - MEAN_BGR
    return shifted.astype(np.int32).astype(np.uint8)
