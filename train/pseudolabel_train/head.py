"""The classifier of DeepLabV2 (Chen et al., TPAMI 2018): atrous spatial pyramid pooling by summed convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import nn


@MODELS.register_module()
class DeepLabV2Head(BaseDecodeHead):
    """The sum of four dilated 3x3 convolutions from features to class logits (DeepLabV2's ASPP-L, Fig. 7).

    MMSegmentation's `ASPPHead` is DeepLabV3's: it has other branches, concatenates them and classifies afterwards. Here
    every branch is a classifier, without `conv_seg`, norm or dropout.

    Args:
        dilations: one per branch; 6, 12, 18, 24 at output stride 8.
        init_std: standard deviation of the initial weights (normal distribution); biases start at zero.
        options: options of `BaseDecodeHead`; `channels` is not used and may be omitted.
    """

    def __init__(self, dilations: Sequence[int] = (6, 12, 18, 24), init_std: float = 0.01, **options: Any) -> None:
        options.setdefault("channels", options["in_channels"])
        options.setdefault("dropout_ratio", 0)
        options.setdefault("init_cfg", {"type": "Normal", "layer": "Conv2d", "std": init_std})
        super().__init__(**options)
        # The parent's classifier would get no gradient, and distributed training raises an error then.
        del self.conv_seg
        self.branches = nn.ModuleList(
            nn.Conv2d(self.in_channels, self.out_channels, 3, padding=dilation, dilation=dilation)
            for dilation in dilations
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits at the features' resolution.

        Args:
            inputs: the backbone's feature maps, float (B, C, h, w) each; `in_index` selects one.

        Returns:
            float (B, classes, h, w), background at 0.
        """
        features = self._transform_inputs(inputs)
        return torch.stack([branch(features) for branch in self.branches]).sum(0)
