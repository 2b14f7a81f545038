"""Losses that MMSegmentation lacks."""

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from pseudolabel.records import BACKGROUND, IGNORE


@MODELS.register_module()
class BalancedCrossEntropyLoss(nn.Module):
    """Cross-entropy averaged over background and over foreground separately, then over the two.

    Starting from ImageNet weights, the head first learns to predict background nearly everywhere; equal weight for both
    sides prevents this in the first thousand iterations. Ignored pixels are left out, and a side without pixels adds 0.

    Args:
        loss_weight: factor on the loss.
        loss_name: its name in logs; only losses whose name begins with `loss` are part of the minimised sum.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_balanced_ce") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None, ignore_index: int = IGNORE
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: float (B, classes, h, w), background at 0.
            labels: int64 (B, h, w); 0 background, 1.. classes, `ignore_index`.
            weight: float (B, h, w), factor on each pixel's loss, from MMSegmentation's pixel samplers.
            ignore_index: the label of ignored pixels.

        Returns:
            float scalar; zero if all pixels are ignored.
        """
        losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore_index)
        if weight is not None:
            losses = losses * weight
        is_background = labels == BACKGROUND
        is_foreground = ~is_background & (labels != ignore_index)
        sides = [(losses * side).sum() / side.sum().clamp(min=1) for side in (is_background, is_foreground)]
        return self.loss_weight * (sides[0] + sides[1]) / 2
