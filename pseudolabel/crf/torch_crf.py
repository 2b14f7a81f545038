"""DenseCRF on its own: the scores of any segmenter in, probabilities and labels out."""

from typing import Any, NamedTuple

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.engines import CPU, fits_device, resolve_engine
from pseudolabel.crf.scipy_engine import ScipyMeanField
from pseudolabel.crf.torch_engine import TorchMeanField

Array = np.ndarray | torch.Tensor


class Refinement(NamedTuple):
    """What DenseCRF makes of an image's scores: arrays, or tensors on the scores' device, as the scores were.

    Attributes:
        scores: float32 (L, H, W) in [0, 1], probabilities that sum to 1 over the labels.
        labels: int64 (H, W), the most probable label of each pixel, 0 to L - 1; of equal ones the first.
    """

    scores: Any
    labels: Any


class TorchCrf:
    """Mean field of a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011) without pydensecrf, with its labels.

    On a CUDA device the lattice is made of tensors there; elsewhere, and for images of more than 4 million pixels, the
    work is done on one processor core. What depends on the image's size alone is kept for the latest 16 sizes, so use
    one object for many images. No gradients flow through it.

    Args:
        iterations: mean-field steps, at least 1.
        gaussian_sxy: sigma in pixels of the smoothness kernel, larger than 0.
        gaussian_weight: weight of the smoothness kernel, at least 0.
        bilateral_sxy: spatial sigma in pixels of the appearance kernel, larger than 0.
        bilateral_srgb: colour sigma in grey levels of the appearance kernel, larger than 0.
        bilateral_weight: weight of the appearance kernel, at least 0.
        device: where the work is done; images and scores may be elsewhere.

    Raises:
        SettingError: if a sigma is not positive.
        ValueError: if a weight is negative, or there are no iterations.
    """

    def __init__(
        self,
        iterations: int = CrfConfig.iterations,
        gaussian_sxy: float = CrfConfig.gaussian_sxy,
        gaussian_weight: float = CrfConfig.gaussian_weight,
        bilateral_sxy: float = CrfConfig.bilateral_sxy,
        bilateral_srgb: float = CrfConfig.bilateral_srgb,
        bilateral_weight: float = CrfConfig.bilateral_weight,
        device: str | torch.device = CPU,
    ) -> None:
        for name, value in {"gaussian_weight": gaussian_weight, "bilateral_weight": bilateral_weight}.items():
            if not value >= 0:
                raise ValueError(f"{name} {value}: a kernel's weight is at least 0")
        if iterations < 1:
            raise ValueError(f"iterations {iterations}: give at least 1")
        config = CrfConfig(iterations, gaussian_sxy, gaussian_weight, bilateral_sxy, bilateral_srgb, bilateral_weight)
        self.config, self.device = resolve_engine(config, torch.device(device)), torch.device(device)
        self._on_core = ScipyMeanField(self.config)
        self._on_device = TorchMeanField(self.config, self.device)

    def __call__(self, image: Array, scores: Array) -> Refinement:
        """Refine the scores of one image.

        Args:
            image: uint8 (H, W, 3), RGB.
            scores: floats (L, H, W) in [0, 1], a score for each label; they need not sum to 1 over the labels.

        Returns:
            probabilities and labels; tensors if `scores` is a tensor, arrays otherwise.

        Raises:
            ValueError: if shapes, types or ranges are not as stated.
            LatticeOverflowError: if the image is too large for the sigmas.
            torch.OutOfMemoryError: if it is too large for the device.
        """
        pixels, values = _tensor(image), _tensor(scores)
        _check(pixels, values)
        is_on_device = self.config.engine == "torch" and fits_device(pixels)
        engine, device = (self._on_device, self.device) if is_on_device else (self._on_core, CPU)
        [marginals] = engine([pixels.to(device).contiguous()], [values.to(device).float()])
        labels = marginals.argmax(0)
        if isinstance(scores, torch.Tensor):
            return Refinement(marginals.to(scores.device, copy=True), labels.to(scores.device, copy=True))
        return Refinement(marginals.cpu().numpy(), labels.cpu().numpy())


def _tensor(given: Array) -> torch.Tensor:
    return given.detach() if isinstance(given, torch.Tensor) else torch.from_numpy(np.array(given, order="C"))


def _check(image: torch.Tensor, scores: torch.Tensor) -> None:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {tuple(image.shape)}")
    if scores.ndim != 3 or not len(scores) or scores.shape[1:] != image.shape[:2]:
        size, shape = tuple(image.shape[:2]), tuple(scores.shape)
        raise ValueError(f"scores must be (L, H, W) at the image's size {size}, not {shape}")
    if not scores.is_floating_point() or not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("scores must be floats in [0, 1]")
