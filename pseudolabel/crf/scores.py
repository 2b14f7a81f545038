"""From class scores to the labels that DenseCRF chooses between, and from its probabilities to a pseudo-mask."""

from typing import Generic, NamedTuple, TypeVar

import torch

from pseudolabel.config import CrfConfig
from pseudolabel.records import BACKGROUND, IGNORE

SMALLEST_PROBABILITY = 1e-5
Array = TypeVar("Array")


class Decision(NamedTuple, Generic[Array]):
    """What DenseCRF decides for the pixels of an image, as arrays or tensors (H, W).

    Attributes:
        labels: uint8, 255 where the winning probability is below `ignore_below`.
        confidence: float32 in [0, 1], the winning probabilities.
        best: uint8, the winning labels, also where `labels` is 255.
    """

    labels: Array
    confidence: Array
    best: Array


def with_background(scores: torch.Tensor, config: CrfConfig) -> torch.Tensor:
    """Put background's score before the classes': (1 - largest class score) ** value, or the value itself.

    Args:
        scores: float32 (C, H, W) in [0, 1], C at least 1.
        config: `background` selects which; `background_value` is the value.

    Returns:
        float32 (C + 1, H, W) in [0, 1].
    """
    if config.background == "threshold":
        background = torch.full_like(scores[0], config.background_value)
    else:
        background = (1 - scores.amax(0)) ** config.background_value
    return torch.cat([background[None], scores])


def choose_labels(
    scores: torch.Tensor, marginals: torch.Tensor | None, classes: tuple[int, ...], config: CrfConfig
) -> Decision[torch.Tensor]:
    """The most probable label of every pixel; ties go to background, then to the earlier class.

    Args:
        scores: float32 (C + 1, H, W) in [0, 1], background first.
        marginals: float32 (C + 1, H, W), mean field's. Without any, the largest score wins, and its probability is its
            share of the scores, clipped to [1e-5, 1], which is where mean field begins.
        classes: the C vocabulary indices.
        config: `ignore_below` makes improbable winners 255.
    """
    if marginals is None:
        clipped = scores.clamp(SMALLEST_PROBABILITY, 1)
        # The unclipped scores decide, so that small ones are compared like any other.
        winner, probabilities = scores.argmax(0, keepdim=True), clipped / clipped.sum(0)
    else:
        winner, probabilities = marginals.argmax(0, keepdim=True), marginals
    confidence = probabilities.gather(0, winner)[0]
    best = torch.tensor([BACKGROUND, *classes], dtype=torch.uint8, device=scores.device)[winner[0]]
    return Decision(best.masked_fill(confidence < config.ignore_below, IGNORE), confidence, best)
