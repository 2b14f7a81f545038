"""DeepLabV2's multi-scale training loss and prediction, written plainly from the paper's description.

A network here is any function from images (B, 3, H, W) to logits (B, classes, h, w).
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def scaled(images: torch.Tensor, scale: float) -> torch.Tensor:
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False) if scale != 1 else images


def enlarged(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def maximum(logits: list[torch.Tensor]) -> torch.Tensor:
    result = logits[0]
    for values in logits[1:]:
        result = torch.maximum(result, enlarged(values, logits[0].shape[-2:]))
    return result


def training_loss(network, images: torch.Tensor, labels: torch.Tensor, scales: tuple[float, ...]) -> torch.Tensor:
    """The sum over all scales and their maximum of the mean cross-entropy over pixels that are not 255.

    Labels, int64 (B, H, W), are brought to each size with Pillow's nearest neighbour.
    """
    logits = [network(scaled(images, scale)) for scale in scales]
    total = torch.zeros(())
    for values in [*logits, maximum(logits)]:
        height, width = values.shape[-2:]
        small = [Image.fromarray(label.numpy().astype(np.uint8)).resize((width, height), 0) for label in labels]
        target = torch.from_numpy(np.stack([np.asarray(label) for label in small])).long()
        chosen = values.log_softmax(1).gather(1, target.where(target != 255, 0)[:, None])[:, 0]
        total = total - chosen[target != 255].mean()
    return total


def prediction(network, images: torch.Tensor, scales: tuple[float, ...], flip: bool) -> torch.Tensor:
    """The largest logits over scales, and mirrored images, at the images' size: float (B, classes, H, W)."""
    logits = []
    for scale in scales:
        logits.append(network(scaled(images, scale)))
        if flip:
            logits.append(network(scaled(images, scale).flip(3)).flip(3))
    return enlarged(maximum(logits), images.shape[-2:])
