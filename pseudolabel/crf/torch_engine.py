"""DenseCRF's mean field in torch, on any device and for many images at once; the same labels as pydensecrf's."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.features import appearance_points, places
from pseudolabel.crf.lattice import Lattice, build_lattice, join_lattices
from pseudolabel.crf.scores import SMALLEST_PROBABILITY

SIZES_KEPT = 16  # lattices of positions, of some 30 MB each at VOC's image sizes
LARGEST_KEPT = 2**20  # pixels


class TorchMeanField:
    """Mean field of Kraehenbuehl and Koltun (NIPS 2011, Algorithm 1) with Potts compatibility.

    Args:
        config: the kernels and the number of iterations.
        device: where the work is done.
    """

    def __init__(self, config: CrfConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        # The smoothness kernel depends on nothing but the image's size.
        self._kept: Callable[[int, int], Lattice] = lru_cache(SIZES_KEPT)(self._build_smoothness)

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Marginals of several images after all iterations.

        Args:
            images: uint8 (H, W, 3) on the device; sizes may differ.
            scores: float32 (L, H, W) in [0, 1] of each image, on the device; L is the same for all of them.

        Returns:
            float32 (L, H, W) probabilities of each image, on the device.

        Raises:
            LatticeOverflowError: if the images are too many or too large for the kernels' sigmas.
            torch.OutOfMemoryError: if they are too many or too large for the device.
        """
        smoothness = join_lattices([self._smoothness(image.shape[0], image.shape[1]) for image in images])
        appearance = self._build_appearance(images)
        unary = torch.cat([own.clamp(SMALLEST_PROBABILITY, 1).log().flatten(1).T for own in scores])
        marginals = unary.softmax(1)
        for _ in range(self.config.iterations):
            marginals = (unary + smoothness.filter(marginals) + appearance.filter(marginals)).softmax(1)
        parts = marginals.split([image.shape[0] * image.shape[1] for image in images])
        return [part.T.reshape(own.shape) for part, own in zip(parts, scores, strict=True)]

    def _smoothness(self, height: int, width: int) -> Lattice:
        return (self._kept if height * width <= LARGEST_KEPT else self._build_smoothness)(height, width)

    def _build_smoothness(self, height: int, width: int) -> Lattice:
        points = places(height, width, self.device) / self.config.gaussian_sxy
        return build_lattice([points]).normalised(self.config.gaussian_weight)

    def _build_appearance(self, images: Sequence[torch.Tensor]) -> Lattice:
        points = [appearance_points(image, self.config) for image in images]
        return build_lattice(points).normalised(self.config.bilateral_weight)
