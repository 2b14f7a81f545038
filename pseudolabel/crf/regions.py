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


def refine_regions(named: NamedRegions, device: torch.device = CPU) -> np.ndarray:
    """uint8 (H, W) labels of named regions, refined by `config.refinement`; `device` is for the engine `torch`."""
    config = named.config
    if config.refinement == "per_cluster":
        return refine_singly(named.image, named.regions, named.names, config.certainty, config.crf, device)
    labels = np.array(named.names, np.uint8)[np.unique(named.regions, return_inverse=True)[1]]
    if config.refinement == "none":
        return labels
    return refine_together(named.image, labels, config.certainty, config.crf, device)


def try_regions(named: NamedRegions, device: torch.device = CPU) -> np.ndarray | SampleError:
    """The result of `refine_regions`, or the error of DenseCRF for this image."""
    try:
        with crf_failures(device, "`freesegdiff.crf.engine`"):
            return refine_regions(named, device)
    except SampleError as error:
        return error


def refine_together(
    image: np.ndarray, labels: np.ndarray, certainty: float, config: CrfConfig, device: torch.device = CPU
) -> np.ndarray:
    """Refine all regions together: one CRF over the labels that occur.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W).
        certainty: probability of a pixel's own label, in (0, 1); the others share the rest.
        config: the CRF's kernels and iterations.
        device: of the engine `torch`.

    Returns:
        uint8 (H, W); the labels are those of the input.
    """
    present = np.unique(labels)
    if len(present) == 1:
        return labels
    rest = (1 - certainty) / (len(present) - 1)
    probabilities = np.where(labels == present[:, None, None], np.float32(certainty), np.float32(rest))
    return present[refine_probabilities(image, probabilities, config, device)]


def refine_singly(
    image: np.ndarray,
    regions: np.ndarray,
    names: list[int],
    certainty: float,
    config: CrfConfig,
    device: torch.device = CPU,
) -> np.ndarray:
    """Refine each named region separately: one binary CRF per region.

    A pixel that several regions claim gets the first one, as in FreeSeg-Diff's released code.

    Args:
        image: uint8 (H, W, 3), RGB.
        regions: integers (H, W).
        names: the label of each region, in the order of the regions' numbers; background regions are skipped.
        certainty: probability of a pixel's own label, in (0, 1).
        config: the CRF's kernels and iterations.
        device: of the engine `torch`.

    Returns:
        uint8 (H, W); background where no region is.
    """
    labels = np.full(regions.shape, BACKGROUND, np.uint8)
    for number, name in zip(np.unique(regions), names, strict=True):
        if name != BACKGROUND:
            inside = refine_together(image, (regions == number).astype(np.uint8), certainty, config, device)
            labels[(inside == 1) & (labels == BACKGROUND)] = name
    return labels
