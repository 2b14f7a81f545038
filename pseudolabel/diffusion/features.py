"""Reading feature maps from a frozen U-Net: queries of cross-attention, outputs of residual blocks and of attention."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from pseudolabel.diffusion.layers import attention_layers, level
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.recording import LastLayerReached

FeatureKind = Literal["queries", "resblock", "attention", "self_attention"]


@dataclass(frozen=True)
class FeatureLayer:
    """A module of the U-Net whose output is a feature map.

    Attributes:
        name: the module's path in the U-Net, such as `up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q`.
        kind: `queries` are those of cross-attention, `resblock` the output of a residual block, `attention` that of a
            block of self- and cross-attention, `self_attention` that of a self-attention layer before it is added.
        stride: downsampling factor, image side over the side of the map.
    """

    name: str
    kind: FeatureKind
    stride: int


def feature_layers(unet: UNet2DConditionModel, vae_stride: int) -> list[FeatureLayer]:
    """The queries and blocks of a U-Net, in no particular order."""
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


@torch.inference_mode()
def read_features(
    model: DiffusionModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor | int,
    embeddings: torch.Tensor,
    layers: Collection[FeatureLayer],
) -> list[torch.Tensor]:
    """Run the U-Net as far as needed and return the outputs of some of its layers.

    Args:
        model: the diffusion model.
        latents: (B, c, h, w) noised latents.
        timesteps: int64 (B,), or one for all latents.
        embeddings: (B, rows, width) text embeddings, as the model's `encode_text` gives them.
        layers: some of its feature layers, at least one.

    Returns:
        One map (B, channels, h, w) per layer, in the model's dtype, in the order in which the U-Net reaches them.
    """
    features: list[torch.Tensor] = []
    hook = _recorder(features, len(layers))
    handles = [model.unet.get_submodule(layer.name).register_forward_hook(hook) for layer in layers]
    try:
        with suppress(LastLayerReached):
            model.run_unet(latents, timesteps, embeddings)
    finally:
        for handle in handles:
            handle.remove()
    return features


def _recorder(features: list[torch.Tensor], wanted: int) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, _: Any, output: Any) -> None:
        features.append(_as_map(output[0] if isinstance(output, tuple) else output))
        if len(features) == wanted:
            raise LastLayerReached

    return record


def _as_map(output: torch.Tensor) -> torch.Tensor:
    """(B, channels, h, w) as it is, or from positions (B, h * w, channels)."""
    if output.ndim == 4:
        return output
    side = int(output.shape[1] ** 0.5)
    return output.mT.unflatten(-1, (side, side))
