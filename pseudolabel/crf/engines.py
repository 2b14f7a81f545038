"""Which engine runs DenseCRF's mean field: scipy or pydensecrf on processor cores, or torch on a device."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.errors import SettingError

MeanField = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], list[torch.Tensor]]
"""From images, uint8 (H, W, 3), and their scores, float32 (L, H, W) in [0, 1], to marginals, float32 (L, H, W)."""

CPU = torch.device("cpu")
# Larger images go to processor cores: torch takes some 1 KB of the device's memory per pixel.
LARGEST_ON_DEVICE = 2**22
SIGMAS = ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb")


def resolve_engine(config: CrfConfig, device: torch.device) -> CrfConfig:
    """The settings with `auto` replaced: torch on CUDA devices, scipy elsewhere.

    Raises:
        SettingError: if a kernel's sigma is not positive, or the engine is not installed.
    """
    for name in SIGMAS:
        if not getattr(config, name) > 0:
            raise SettingError(f"crf.{name} {getattr(config, name)}: a kernel's sigma is larger than 0")
    if config.engine == "pydensecrf" and find_spec("pydensecrf") is None:
        raise SettingError(
            "crf.engine pydensecrf: the package pydensecrf2 is not installed; install it with the extra `crf` "
            "(pip install 'pseudolabel[crf]'), which needs a C++ compiler, or choose `scipy`, which gives equal labels"
        )
    if config.engine != "auto":
        return config
    return replace(config, engine="torch" if device.type == "cuda" else "scipy")


def crf_settings(config: CrfConfig) -> dict[str, Any]:
    """All that labels depend on; the engines give the same ones."""
    return {name: value for name, value in asdict(config).items() if name != "engine"}


@lru_cache(maxsize=2)
def open_mean_field(config: CrfConfig, device: torch.device) -> MeanField:
    """The mean field of images and scores on the CPU; each engine is imported where it is used.

    Raises:
        SettingError: if a kernel's sigma is not positive, or the engine is not installed.
    """
    chosen = resolve_engine(config, device).engine
    if chosen == "pydensecrf":
        return partial(_by_pydensecrf, config=config)
    from pseudolabel.crf.scipy_engine import ScipyMeanField

    on_cores = ScipyMeanField(config)
    if chosen == "scipy":
        return on_cores
    from pseudolabel.crf.torch_engine import TorchMeanField

    engine = TorchMeanField(config, device)

    def on_device(images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not all(map(fits_device, images)):
            return on_cores(images, scores)
        marginals = engine([image.to(device) for image in images], [own.to(device) for own in scores])
        return [own.cpu() for own in marginals]

    return on_device


def fits_device(image: np.ndarray | torch.Tensor) -> bool:
    """Whether an image, (H, W, 3), is for the engine `torch`."""
    return image.shape[0] * image.shape[1] <= LARGEST_ON_DEVICE


def _by_pydensecrf(
    images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor], config: CrfConfig
) -> list[torch.Tensor]:
    from pseudolabel.crf.pydensecrf_engine import mean_field

    return [
        torch.from_numpy(mean_field(image.numpy(), own.numpy(), config))
        for image, own in zip(images, scores, strict=True)
    ]
