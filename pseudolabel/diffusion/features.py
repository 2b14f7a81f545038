"""Reading feature maps out of a frozen U-Net: queries of cross-attention, outputs of residual and attention blocks."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from pseudolabel.diffusion.layers import attention_layers, level
from pseudolabel.diffusion.recording import LastLayerReached

FeatureKind = Literal["queries", "resblock", "attention"]


@dataclass(frozen=True)
class FeatureLayer:
    """A module of the U-Net whose output is a feature map.

    Attributes:
        name: the module's path in the U-Net, such as `up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q`.
        kind: `queries` are those of cross-attention, `resblock` the output of a residual block, `attention` that of a
            block of self- and cross-attention.
        stride: downsampling factor, image side over the side of the map.
    """

    name: str
    kind: FeatureKind
    stride: int


def feature_layers(unet: UNet2DConditionModel, vae_stride: int) -> list[FeatureLayer]:
    """All such layers of a U-Net, in no particular order."""
    queries = [
        FeatureLayer(f"{layer.name}.to_q", "queries", layer.stride)
        for layer in attention_layers(unet, vae_stride)
        if layer.kind == "cross"
    ]
    last = len(unet.config.block_out_channels) - 1
    blocks = [
        FeatureLayer(name, kind, vae_stride * 2 ** level(name, last))
        for name, module in unet.named_modules()
        if (kind := _kind(module)) is not None
    ]
    return [*queries, *blocks]


def _kind(module: nn.Module) -> FeatureKind | None:
    if isinstance(module, ResnetBlock2D):
        return "resblock"
    return "attention" if isinstance(module, Transformer2DModel) else None


@contextmanager
def record_features(unet: UNet2DConditionModel, layers: Collection[FeatureLayer]) -> Iterator[list[torch.Tensor]]:
    """Record while the context lasts; the forward pass ends early, without a result, once it has all of them.

    Args:
        unet: the U-Net.
        layers: some of its `feature_layers`, at least one.

    Yields:
        A list that fills with a map (B, channels, h, w) per layer, in the model's dtype and in the forward's order.
    """
    features: list[torch.Tensor] = []
    handles = [
        unet.get_submodule(layer.name).register_forward_hook(_recorder(features, len(layers))) for layer in layers
    ]
    try:
        yield features
    except LastLayerReached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _recorder(features: list[torch.Tensor], wanted: int) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, _: Any, output: Any) -> None:
        features.append(_as_map(output[0] if isinstance(output, tuple) else output))
        if len(features) == wanted:
            raise LastLayerReached

    return record


def _as_map(output: torch.Tensor) -> torch.Tensor:
    """(B, channels, h, w), also from queries (B, h * w, channels)."""
    if output.ndim == 4:
        return output
    side = int(output.shape[1] ** 0.5)
    return output.mT.unflatten(-1, (side, side))
