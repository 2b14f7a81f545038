"""DenseCRF on masks without scores, such as clusters; every pixel's label has the same probability."""

from dataclasses import dataclass

import numpy as np
import torch

from pseudolabel.config import CrfConfig, FreeSegDiffConfig
from pseudolabel.crf.densecrf import refine_probabilities
from pseudolabel.crf.engines import CPU
from pseudolabel.crf.failures import crf_failures
from pseudolabel.errors import SampleError
from pseudolabel.records import BACKGROUND

Refined = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class NamedRegions:
    """An image with named regions; the input of a worker process.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        regions: integers (H, W).
        names: the label of each region, in the order of the regions' numbers; 0 is background.
        config: the refinement and its parameters.
    """

    image: np.ndarray
    regions: np.ndarray
    names: list[int]
    config: FreeSegDiffConfig


def refine_regions(named: NamedRegions, device: torch.device = CPU) -> Refined:
    """Labels of named regions, refined as `refinement` says, and their probabilities, None without refinement.

    Args:
        named: the regions of one image.
        device: where the engine `torch` works.

    Returns:
        uint8 (H, W) labels and float32 (H, W) confidence or None.
    """
    config = named.config
    if config.refinement == "per_cluster":
        return refine_singly(named.image, named.regions, named.names, config.certainty, config.crf, device)
    labels = np.array(named.names, np.uint8)[np.unique(named.regions, return_inverse=True)[1]]
    if config.refinement == "none":
        return labels, None
    return refine_together(named.image, labels, config.certainty, config.crf, device)


def try_regions(named: NamedRegions, device: torch.device = CPU) -> Refined | SampleError:
    """The result of `refine_regions`, or the error of DenseCRF for this image."""
    try:
        with crf_failures(device, "`freesegdiff.crf.engine`"):
            return refine_regions(named, device)
    except SampleError as error:
        return error


def refine_together(
    image: np.ndarray, labels: np.ndarray, certainty: float, config: CrfConfig, device: torch.device = CPU
) -> tuple[np.ndarray, np.ndarray]:
    """Refine all regions together: one CRF over the labels that occur.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W).
        certainty: probability of a pixel's own label, in (0, 1); the others share the rest.
        config: the CRF's kernels and iterations.
        device: of the engine `torch`.

    Returns:
        uint8 (H, W) labels, of those that occur in `labels`, and float32 (H, W) winning probabilities.
    """
    present = np.unique(labels)
    if len(present) == 1:
        return labels, np.ones(labels.shape, np.float32)
    rest = (1 - certainty) / (len(present) - 1)
    probabilities = np.where(labels == present[:, None, None], np.float32(certainty), np.float32(rest))
    winners, confidence = refine_probabilities(image, probabilities, config, device)
    return present[winners], confidence


def refine_singly(
    image: np.ndarray,
    regions: np.ndarray,
    names: list[int],
    certainty: float,
    config: CrfConfig,
    device: torch.device = CPU,
) -> tuple[np.ndarray, np.ndarray]:
    """Let each named region follow the image's edges by itself, against all others.

    A pixel that several regions claim belongs to the first of them, as in FreeSeg-Diff's released code.

    Args:
        image: uint8 (H, W, 3), RGB.
        regions: integers (H, W).
        names: the label of each region, in the order of the regions' numbers; background regions are skipped.
        certainty: probability of a pixel's own label, in (0, 1).
        config: the CRF's kernels and iterations.
        device: of the engine `torch`.

    Returns:
        uint8 (H, W) labels, background where no region claims the pixel, and float32 (H, W) confidence: the probability
        of the region that a pixel belongs to; of background, the smallest probability of being outside of a region.
    """
    labels, confidence = np.full(regions.shape, BACKGROUND, np.uint8), np.ones(regions.shape, np.float32)
    for number, name in zip(np.unique(regions), names, strict=True):
        if name != BACKGROUND:
            inside, winning = refine_together(image, (regions == number).astype(np.uint8), certainty, config, device)
            is_free = labels == BACKGROUND
            confidence = np.where(is_free, np.where(inside == 1, winning, np.minimum(confidence, winning)), confidence)
            labels[(inside == 1) & is_free] = name
    return labels, confidence
