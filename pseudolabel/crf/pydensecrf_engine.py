"""DenseCRF's mean field by pydensecrf: Kraehenbuehl and Koltun's own C++, one image on one processor core."""

import numpy as np
from pydensecrf.densecrf import DenseCRF2D

from pseudolabel.config import CrfConfig
from pseudolabel.crf.scores import SMALLEST_PROBABILITY


def mean_field(image: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Marginals of one image after all iterations.

    Args:
        image: uint8 (H, W, 3), writable and contiguous.
        scores: float32 (L, H, W) in [0, 1].
        config: the kernels and the number of iterations.

    Returns:
        float32 (L, H, W) probabilities.
    """
    labels, height, width = scores.shape
    crf = DenseCRF2D(width, height, labels)
    unary = -np.log(scores.clip(SMALLEST_PROBABILITY, 1))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(labels, -1), np.float32))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=image,
        compat=config.bilateral_weight,
    )
    return np.array(crf.inference(config.iterations), np.float32).reshape(scores.shape)
