"""DenseCRF (Kraehenbuehl and Koltun, NIPS 2011) over background and an image's classes, as in CLIP-ES (CVPR 2023)."""

import numpy as np
from pydensecrf.densecrf import DenseCRF2D

from pseudolabel.config import CrfConfig
from pseudolabel.records import BACKGROUND, IGNORE

SMALLEST_PROBABILITY = 1e-5
MEAN_BGR = np.array([104.008, 116.669, 122.675], np.float32)


def refine(
    image: np.ndarray, scores: np.ndarray, classes: tuple[int, ...], config: CrfConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Turn class scores into a pseudo-mask that follows the image's edges.

    The unary potential of a label is -log of its score, clipped to [1e-5, 1]. The scores are not normalised over the
    labels beforehand: mean field does it, since Q starts as softmax(-unary) = score / sum of scores. With
    `config.iterations` 0 that start is the result: the labels are the largest scores, ties going to background, and
    the winning probability is the winner's share of the sum.

    Args:
        image: uint8 (H, W, 3), RGB.
        scores: float32 (C, H, W) in [0, 1]; C may be 0, then everything is background with probability 1.
        classes: the C vocabulary indices that the scores belong to.
        config: the CRF's parameters.

    Returns:
        uint8 (H, W) labels, 255 where the winning probability is below `config.ignore_below`, and
        float32 (H, W) winning probabilities in [0, 1].

    Raises:
        ValueError: if shapes, types or ranges of image and scores are not as stated.
    """
    _check(image, scores, classes)
    if not classes:
        return np.full(image.shape[:2], BACKGROUND, np.uint8), np.ones(image.shape[:2], np.float32)
    stacked = np.concatenate([background_score(scores, config)[None], scores])
    probabilities = _mean_field(image, stacked, config) if config.iterations else _start(stacked)
    # Without a mean-field step the unclipped scores decide, so that small ones are compared like any other.
    best = (probabilities if config.iterations else stacked).argmax(0)
    winning = np.take_along_axis(probabilities, best[None], 0)[0]
    labels = np.array([BACKGROUND, *classes], np.uint8)[best]
    labels[winning < np.float32(config.ignore_below)] = IGNORE
    return labels, winning


def refine_probabilities(image: np.ndarray, probabilities: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Let a segmenter's own probabilities follow the image's edges, as DeepLab does after its network.

    Only the kernels and the number of iterations of `config` matter: background has a probability of its own here.

    Args:
        image: uint8 (H, W, 3), RGB.
        probabilities: float32 (labels, H, W) in [0, 1], background at 0.
        config: the CRF's parameters; `iterations` must be at least 1.

    Returns:
        uint8 (H, W), the most probable label of each pixel.

    Raises:
        ValueError: if shapes, types or ranges are not as stated.
    """
    _check(image, probabilities, tuple(range(len(probabilities))))
    return _mean_field(image, probabilities, config).argmax(0).astype(np.uint8)


def background_score(scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Background's score: (1 - largest class score) ** value, or the value itself; float32 (H, W) in [0, 1].

    Args:
        scores: float32 (C, H, W) in [0, 1], C at least 1.
        config: says which, with `background` and `background_value`.
    """
    if config.background == "threshold":
        return np.full(scores.shape[1:], config.background_value, np.float32)
    return np.power(1 - scores.max(0), config.background_value, dtype=np.float32)


def wrapped(image: np.ndarray) -> np.ndarray:
    """CLIP-ES's CRF input: BGR less its mean, cast to uint8, where -1 becomes 255; uint8 (H, W, 3).

    Casting a negative float to an unsigned integer is undefined in C, so we cut to an integer first; that is what
    the cast did on the machines CLIP-ES ran on.

    Args:
        image: uint8 (H, W, 3), RGB.
    """
    shifted = image[..., ::-1].astype(np.float32) - MEAN_BGR
    return shifted.astype(np.int32).astype(np.uint8)


def _mean_field(image: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Mean-field marginals after `config.iterations` steps: float32 (labels, H, W)."""
    labels, height, width = scores.shape
    crf = DenseCRF2D(width, height, labels)
    unary = -np.log(scores.clip(SMALLEST_PROBABILITY, 1))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(labels, -1), np.float32))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        # A copy, for pydensecrf refuses read-only arrays, such as those that share a Pillow image's memory.
        rgbim=np.array(wrapped(image) if config.image == "wrapped" else image, order="C"),
        compat=config.bilateral_weight,
    )
    return np.array(crf.inference(config.iterations), np.float32).reshape(scores.shape)


def _start(scores: np.ndarray) -> np.ndarray:
    """Mean field's starting point, each label's share of the clipped scores: float32 (labels, H, W)."""
    clipped = scores.clip(SMALLEST_PROBABILITY, 1)
    return clipped / clipped.sum(0)


def _check(image: np.ndarray, scores: np.ndarray, classes: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    if scores.shape != (len(classes), *image.shape[:2]):
        raise ValueError(f"scores of shape {scores.shape} do not fit {len(classes)} classes and an image {image.shape}")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("scores must lie in [0, 1]")
