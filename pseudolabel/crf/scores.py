"""From class scores to the labels that DenseCRF chooses between, and from its probabilities to a pseudo-mask."""

import torch

from pseudolabel.config import CrfConfig
from pseudolabel.records import BACKGROUND, IGNORE

SMALLEST_PROBABILITY = 1e-5


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable label of every pixel; ties go to background, then to the earlier class.

    Args:
        scores: float32 (C + 1, H, W) in [0, 1], background first.
        marginals: float32 (C + 1, H, W), mean field's. Without any, the largest score wins, and its probability is its
            share of the scores, clipped to [1e-5, 1], which is where mean field begins.
        classes: the C vocabulary indices.
        config: `ignore_below` makes improbable winners 255.

    Returns:
        uint8 (H, W) labels and float32 (H, W) winning probabilities.
    """
    if marginals is None:
        clipped = scores.clamp(SMALLEST_PROBABILITY, 1)
        # The unclipped scores decide, so that small ones are compared like any other.
        best, probabilities = scores.argmax(0, keepdim=True), clipped / clipped.sum(0)
    else:
        best, probabilities = marginals.argmax(0, keepdim=True), marginals
    winning = probabilities.gather(0, best)[0]
    labels = torch.tensor([BACKGROUND, *classes], dtype=torch.uint8, device=scores.device)[best[0]]
    return labels.masked_fill(winning < config.ignore_below, IGNORE), winning
