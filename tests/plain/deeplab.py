"""DeepLabV2: its network, multi-scale training loss and prediction, written plainly from the paper and released models.

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


def resnet_deeplab_v2(
    images: torch.Tensor, weights: dict[str, torch.Tensor], blocks: tuple[int, ...], stride_in_1x1: bool
) -> torch.Tensor:
    """Logits (B, classes, h, w) of a bottleneck ResNet at output stride 8 with four summed dilated classifiers.

    Caffe's pooling rounds sizes up, so that the stem halves 188 to 95. `weights` are named as torchvision names a
    ResNet's, below `backbone.`, and `decode_head.branches.0` to `3`. Batch norm uses its stored statistics.
    """

    def conv(values: torch.Tensor, name: str, stride: int = 1, dilation: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        padding = dilation * (kernel.shape[-1] // 2)
        return F.conv2d(values, kernel, weights.get(f"{name}.bias"), stride, padding, dilation)

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        parts = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(values, *parts)

    values = norm(conv(images, "backbone.conv1", stride=2), "backbone.bn1").relu()
    values = F.max_pool2d(values, 3, stride=2, padding=1, ceil_mode=True)
    for number, count in enumerate(blocks):
        stride, dilation = ((1, 1), (2, 1), (1, 2), (1, 4))[number]
        for block in range(count):
            name = f"backbone.layer{number + 1}.{block}"
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            branch = norm(conv(values, f"{name}.conv1", first), f"{name}.bn1").relu()
            branch = norm(conv(branch, f"{name}.conv2", second, dilation), f"{name}.bn2").relu()
            branch = norm(conv(branch, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                values = norm(conv(values, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            values = (values + branch).relu()
            stride = 1
    dilations = enumerate((6, 12, 18, 24))
    return sum(conv(values, f"decode_head.branches.{branch}", dilation=dilation) for branch, dilation in dilations)
