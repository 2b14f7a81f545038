"""Which engine runs DenseCRF's mean field: pydensecrf on processor cores, or torch on a device."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.errors import SettingError

MeanField = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From an image, uint8 (H, W, 3), and scores, float32 (L, H, W) in [0, 1], to float32 (L, H, W) marginals."""

CPU = torch.device("cpu")
# Larger images go to pydensecrf whatever the engine: torch takes some 1 KB of the device's memory per pixel.
LARGEST_ON_DEVICE = 2**22
DEVIATIONS = ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb")


def resolve_engine(config: CrfConfig, device: torch.device) -> CrfConfig:
    """The settings with `auto` replaced: torch on CUDA devices, pydensecrf elsewhere.

    Raises:
        SettingError: if a kernel's deviation is not positive.
    """
    for name in DEVIATIONS:
        if not getattr(config, name) > 0:
            raise SettingError(f"crf.{name} {getattr(config, name)}: a kernel's deviation is larger than 0")
    if config.engine != "auto":
        return config
    return replace(config, engine="torch" if device.type == "cuda" else "pydensecrf")


def crf_settings(config: CrfConfig) -> dict[str, Any]:
    """All that labels depend on; the engines give the same ones."""
    return {name: value for name, value in asdict(config).items() if name != "engine"}


@lru_cache(maxsize=2)
def open_mean_field(config: CrfConfig, device: torch.device) -> MeanField:
    """The mean field of one image after another; each engine is imported where it is used."""
    if resolve_engine(config, device).engine == "pydensecrf":
        return partial(_on_cores, config=config)
    from pseudolabel.crf.torch_engine import TorchCrf

    on_device = TorchCrf(config, device).mean_field
    return lambda image, scores: on_device(image, scores) if fits_device(image) else _on_cores(image, scores, config)


def fits_device(image: np.ndarray) -> bool:
    """Whether an image, (H, W, 3), is for the engine `torch`."""
    return image.shape[0] * image.shape[1] <= LARGEST_ON_DEVICE


def _on_cores(image: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    from pseudolabel.crf.pydensecrf_engine import mean_field

    return mean_field(image, scores, config)
