"""Which engine runs DenseCRF's mean field: pydensecrf on processor cores, or torch on a device."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.errors import SettingError

MeanField = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], list[torch.Tensor]]
"""From images, uint8 (H, W, 3), and their scores, float32 (L, H, W) in [0, 1], to marginals, float32 (L, H, W)."""

CPU = torch.device("cpu")
# Larger images are refined on processor cores whatever the engine: torch takes some 1 KB of memory per pixel.
LARGEST_ON_DEVICE = 2**22
SIGMAS = ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb")
INSTALL = "pip install 'pseudolabel[crf]' (a C++ compiler builds it, on Python 3.11 and 3.12)"

log = logging.getLogger(__name__)


def resolve_engine(config: CrfConfig, device: torch.device) -> CrfConfig:
    """The settings with `auto` replaced: torch on CUDA devices, elsewhere pydensecrf where it is installed, else torch.

    Raises:
        SettingError: if a kernel's sigma is not positive, or pydensecrf is wanted and not installed.
    """
    for name in SIGMAS:
        if not getattr(config, name) > 0:
            raise SettingError(f"crf.{name} {getattr(config, name)}: a kernel's sigma is larger than 0")
    if config.engine == "pydensecrf" and not has_pydensecrf():
        raise SettingError(f"`crf.engine` pydensecrf: it is not installed; {INSTALL}, or give `auto`")
    if config.engine != "auto":
        return config
    if device.type != "cuda" and not has_pydensecrf():
        _say_that_torch_replaces_it()
        return replace(config, engine="torch")
    return replace(config, engine="torch" if device.type == "cuda" else "pydensecrf")


def has_pydensecrf() -> bool:
    """Whether the engine `pydensecrf` is installed."""
    return find_spec("pydensecrf") is not None


@cache
def _say_that_torch_replaces_it() -> None:
    """Once in a process."""
    log.info("DenseCRF runs in torch, with the same labels; pydensecrf is faster on processors: %s", INSTALL)


def crf_settings(config: CrfConfig) -> dict[str, Any]:
    """All that labels depend on; the engines give the same ones."""
    return {name: value for name, value in asdict(config).items() if name != "engine"}


@lru_cache(maxsize=2)
def open_mean_field(config: CrfConfig, device: torch.device) -> MeanField:
    """The mean field of images and scores on the CPU; each engine is imported where it is used.

    Raises:
        SettingError: if a kernel's sigma is not positive.
    """
    on_cores = partial(_on_cores, config=config)
    if resolve_engine(config, device).engine == "pydensecrf":
        return on_cores
    from pseudolabel.crf.torch_engine import TorchCrf

    engine = TorchCrf(config, device)

    def on_device(images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not all(map(fits_device, images)):
            return on_cores(images, scores)
        marginals = engine([image.to(device) for image in images], [own.to(device) for own in scores])
        return [own.cpu() for own in marginals]

    return on_device


def fits_device(image: np.ndarray | torch.Tensor) -> bool:
    """Whether an image, (H, W, 3), is for the engine `torch`."""
    return image.shape[0] * image.shape[1] <= LARGEST_ON_DEVICE


def _on_cores(images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor], config: CrfConfig) -> list[torch.Tensor]:
    if not has_pydensecrf():
        from pseudolabel.crf.torch_engine import TorchCrf

        engine = TorchCrf(config, CPU)  # one by one, for their memory
        return [engine([image], [own])[0] for image, own in zip(images, scores, strict=True)]
    from pseudolabel.crf.pydensecrf_engine import mean_field

    return [
        torch.from_numpy(mean_field(image.numpy(), own.numpy(), config))
        for image, own in zip(images, scores, strict=True)
    ]
