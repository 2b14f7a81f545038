"""DenseCRF's mean field on one processor core, by sparse products; the same labels as pydensecrf's."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.features import appearance_points, places
from pseudolabel.crf.scipy_lattice import ScipyLattice, build_scipy_lattice
from pseudolabel.crf.scores import SMALLEST_PROBABILITY
from pseudolabel.crf.torch_engine import LARGEST_KEPT, SIZES_KEPT

COLUMNS = (1, 2, 4, 8)  # numbers of labels that are filtered together; zeros fill up


class ScipyMeanField:
    """Mean field of Kraehenbuehl and Koltun (NIPS 2011, Algorithm 1) with Potts compatibility, image by image.

    Args:
        config: the kernels and the number of iterations.
    """

    def __init__(self, config: CrfConfig) -> None:
        self.config = config
        # The smoothness kernel depends on nothing but the image's size.
        self._kept: Callable[[int, int], ScipyLattice] = lru_cache(SIZES_KEPT)(self._build_smoothness)

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Marginals of several images after all iterations.

        Args:
            images: uint8 (H, W, 3); sizes may differ.
            scores: float32 (L, H, W) in [0, 1] of each image.

        Returns:
            float32 (L, H, W) probabilities of each image.

        Raises:
            LatticeOverflowError: if an image is too large for the kernels' sigmas.
        """
        return [self._refine(image, own) for image, own in zip(images, scores, strict=True)]

    def _refine(self, image: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[:2]
        smoothness = (self._kept if height * width <= LARGEST_KEPT else self._build_smoothness)(height, width)
        appearance = build_scipy_lattice(appearance_points(image, self.config), self.config.bilateral_weight)
        kernels = (smoothness, appearance)
        unary = scores.clamp(SMALLEST_PROBABILITY, 1).log().flatten(1)
        # Probabilities sum to 1, so the last label's sums are those of ones less all others': one label less to filter.
        of_ones = _filter(kernels, torch.ones(1, height * width))[0]
        marginals = unary.softmax(0)
        for _ in range(self.config.iterations):
            sums = _filter(kernels, marginals[:-1])
            marginals = (unary + torch.cat([sums, (of_ones - sums.sum(0))[None]])).softmax(0)
        return marginals.reshape(scores.shape)

    def _build_smoothness(self, height: int, width: int) -> ScipyLattice:
        points = places(height, width, torch.device("cpu")) / self.config.gaussian_sxy
        return build_scipy_lattice(points, self.config.gaussian_weight)


def _filter(kernels: Sequence[ScipyLattice], values: torch.Tensor) -> torch.Tensor:
    """The sum of all kernels' filters: float32 (L, N) from (L, N)."""
    filtered = torch.empty_like(values)
    for first in range(0, len(values), COLUMNS[-1]):
        part = values[first : first + COLUMNS[-1]]
        columns = np.zeros((values.shape[1], next(width for width in COLUMNS if width >= len(part))), np.float32)
        columns[:, : len(part)] = part.numpy().T
        total = kernels[0].filter(columns)
        for kernel in kernels[1:]:
            total += kernel.filter(columns)
        filtered[first : first + len(part)] = torch.from_numpy(total[:, : len(part)].T)
    return filtered
