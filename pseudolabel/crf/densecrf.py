"""DenseCRF (Kraehenbuehl and Koltun, NIPS 2011) over background and an image's classes, as in CLIP-ES (CVPR 2023)."""

from collections.abc import Sequence

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.engines import CPU, MeanField, open_mean_field
from pseudolabel.crf.image import fed
from pseudolabel.crf.scores import Decision, choose_labels, with_background
from pseudolabel.records import BACKGROUND


def refine(
    image: np.ndarray, scores: np.ndarray, classes: tuple[int, ...], config: CrfConfig, device: torch.device = CPU
) -> Decision[np.ndarray]:
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
        device: where the engine `torch` works; `auto` chooses the engine by it.

    Raises:
        ValueError: if shapes, types or ranges of image and scores are not as stated.
        SettingError: if a kernel's sigma is not positive.
    """
    _check(image, scores, classes)
    mean_field = open_mean_field(config, device)
    [decision] = label_images([fed(image, config)], [torch.from_numpy(scores)], [classes], config, mean_field)
    return Decision(*(tensor.numpy() for tensor in decision))


def label_images(
    images: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    classes: Sequence[tuple[int, ...]],
    config: CrfConfig,
    mean_field: MeanField,
) -> list[Decision[torch.Tensor]]:
    """Pseudo-masks of images: background's score, mean field, the most probable label.

    Args:
        images: uint8 (H, W, 3) as DenseCRF is fed them, see `fed`.
        scores: float32 (C, H, W) in [0, 1] of each image; C is the same for all of them and may be 0.
        classes: the C vocabulary indices of each image.
        config: the CRF's parameters.
        mean_field: of an engine, for tensors of the device that they are on.

    Returns:
        the decision of each image, on the same device.
    """
    if not classes[0]:
        return [_all_background(image[..., 0]) for image in images]
    stacked = [with_background(own, config) for own in scores]
    marginals = mean_field(images, stacked) if config.iterations else [None] * len(images)
    return [
        choose_labels(own, probabilities, names, config)
        for own, probabilities, names in zip(stacked, marginals, classes, strict=True)
    ]


def _all_background(pixels: torch.Tensor) -> Decision[torch.Tensor]:
    labels = torch.full_like(pixels, BACKGROUND)
    return Decision(labels, torch.ones_like(labels, dtype=torch.float32), labels)


def refine_probabilities(
    image: np.ndarray, probabilities: np.ndarray, config: CrfConfig, device: torch.device = CPU
) -> tuple[np.ndarray, np.ndarray]:
    """Let a segmenter's own probabilities follow the image's edges, as DeepLab does after its network.

    Only the kernels and the number of iterations of `config` matter: `probabilities` include background.

    Args:
        image: uint8 (H, W, 3), RGB.
        probabilities: float32 (labels, H, W) in [0, 1], background at 0.
        config: the CRF's parameters; `iterations` must be at least 1.
        device: where the engine `torch` works; `auto` chooses the engine by it.

    Returns:
        uint8 (H, W), the most probable label of each pixel, and float32 (H, W), its probability.

    Raises:
        ValueError: if shapes, types or ranges are not as stated.
        SettingError: if a kernel's sigma is not positive.
    """
    _check(image, probabilities, tuple(range(len(probabilities))))
    [marginals] = open_mean_field(config, device)([fed(image, config)], [torch.from_numpy(probabilities)])
    labels = marginals.argmax(0, keepdim=True)
    return labels[0].byte().numpy(), marginals.gather(0, labels)[0].numpy()


def _check(image: np.ndarray, scores: np.ndarray, classes: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    if scores.shape != (len(classes), *image.shape[:2]):
        raise ValueError(f"scores of shape {scores.shape} do not fit {len(classes)} classes and an image {image.shape}")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("scores must be in [0, 1]")
