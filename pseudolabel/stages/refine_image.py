"""DenseCRF on one image's scores, for Python."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pseudolabel.config import CrfConfig, Experiment
from pseudolabel.crf.densecrf import refine as refine_scores
from pseudolabel.crf.failures import crf_failures
from pseudolabel.experiment_file import open_experiment
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.stages.image_like import ImageLike, decode
from pseudolabel.stages.pretrained import find_device
from pseudolabel.views.segmentation import Segmentation


def refine(
    image: ImageLike,
    scores: Any,
    classes: Sequence[str] | Mapping[int, str],
    crf: str | CrfConfig = "clip-es",
    *,
    device: str | torch.device | None = None,
    **changes: Any,
) -> Segmentation:
    """Labels that follow the image's edges, and their probabilities, by DenseCRF (Kraehenbuehl and Koltun 2011).

    Args:
        image: a PIL image, uint8 array, path, URL or bytes.
        scores: (C, H, W) in [0, 1] at the image's size, a NumPy array or a tensor.
        classes: names of the C classes, which get the labels 1, 2, ...; or names by label, such as a result's `names`.
        crf: a preset, such as `clip-es` or `none`, a file of settings, or the settings themselves.
        device: where the engine `torch` runs; None is the device that Accelerate gives this process.
        changes: single settings, such as `iterations=5` or `ignore_below=0.0`, which leaves no pixel ignored.

    Returns:
        The image with uint8 labels, 255 where the winning probability is below `ignore_below`, and float32
        confidence, both (H, W).

    Raises:
        SampleError: if the image cannot be read, or image, scores and classes do not fit each other.
        SettingError: if there is no such setting, or a value makes no sense.
    """
    base = Experiment(crf=crf) if isinstance(crf, CrfConfig) else open_experiment(Experiment(), {"crf": crf})
    config = open_experiment(base, {f"crf.{name}": value for name, value in changes.items()}).crf
    names = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes, 1))
    array = scores.detach().cpu().numpy() if isinstance(scores, torch.Tensor) else scores
    unrefined = Segmentation(decode(image, "the image"), None, names, np.asarray(array, np.float32))
    return decide(replace(unrefined, classes=tuple(names.values())), config, find_device(device))


def decide(result: Segmentation, config: CrfConfig, device: torch.device) -> Segmentation:
    """A result's scores with the labels and the confidence that DenseCRF finds; `names` are of its classes before.

    Raises:
        SampleError: if the CRF cannot take the image.
    """
    assert result.scores is not None
    with crf_failures(device):
        found = refine_scores(np.asarray(result.image), result.scores, tuple(result.names), config, device)
    names = names_found(found.labels, result.names)
    return replace(result, labels=found.labels, confidence=found.confidence, names=names)


def names_found(labels: np.ndarray, names: Mapping[int, str]) -> dict[int, str]:
    """The names of the labels that occur, without background and ignored pixels."""
    return {int(label): names[label] for label in np.unique(labels) if label not in (BACKGROUND, IGNORE)}
