"""Reading attention out of a frozen U-Net: only what a method asks for, only as far as it is needed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pseudolabel.diffusion.layers import AttentionLayer, attention_layers


@dataclass
class Recording:
    """Attention of one forward pass over a batch of B latents, by downsampling factor, in the layers' order.

    Attributes:
        cross: float32 (B, h*w) or (B, C, h*w) maps per layer, as the token weights have it: softmax over all tokens
            (Eq. 4), mean over heads, weighted over tokens.
        queries_keys: (B, heads, h*w, d) queries and keys per self-attention layer, in the model's dtype.
    """

    cross: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    queries_keys: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)


class LastLayerReached(Exception):
    """Ends a forward pass once nothing further is wanted."""


@contextmanager
def record_attention(
    unet: UNet2DConditionModel,
    vae_stride: int,
    token_weights: torch.Tensor,
    cross_strides: Collection[int],
    self_strides: Collection[int],
) -> Iterator[Recording]:
    """Record while the context lasts; the forward pass ends early, without a result, after the last wanted layer.

    Args:
        unet: the U-Net; its attention processors are put back at the end.
        vae_stride: image side over latent side.
        token_weights: float32 (B, tokens), or (B, C, tokens) for C maps of each latent; the weight of each token's
            column in the cross-attention map.
        cross_strides: downsampling factors whose cross-attention is recorded.
        self_strides: downsampling factors whose self-attention queries and keys are recorded.

    Raises:
        ValueError: if the U-Net has no such layer.
    """
    wanted = _wanted_layers(attention_layers(unet, vae_stride), cross_strides, self_strides)
    recording = Recording()
    # Only these layers are touched: to set all of them takes diffusers a third of the Python time of a forward pass.
    modules = [unet.get_submodule(layer.name) for layer in wanted]
    before = [module.get_processor() for module in modules]
    for module, layer in zip(modules, wanted, strict=True):
        is_last = layer is wanted[-1]
        module.set_processor(
            _RecordCross(recording, layer.stride, token_weights, is_last)
            if layer.kind == "cross"
            else _RecordSelf(recording, layer.stride, is_last)
        )
    try:
        yield recording
    except LastLayerReached:
        pass
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)


def _wanted_layers(
    layers: list[AttentionLayer], cross_strides: Collection[int], self_strides: Collection[int]
) -> list[AttentionLayer]:
    for kind, strides in {"cross": cross_strides, "self": self_strides}.items():
        known = sorted({layer.stride for layer in layers if layer.kind == kind})
        missing = sorted(set(strides) - set(known))
        if missing:
            raise ValueError(f"the U-Net has no {kind}-attention at downsampling factor {missing[0]}; it has {known}")
    return [layer for layer in layers if layer.stride in (cross_strides if layer.kind == "cross" else self_strides)]


class _RecordCross:
    """Attention processor of a cross-attention layer whose token columns are wanted."""

    def __init__(self, recording: Recording, stride: int, token_weights: torch.Tensor, is_last: bool) -> None:
        self.maps = recording.cross.setdefault(stride, [])
        self.token_weights = token_weights
        self.is_last = is_last

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: object
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, encoder_hidden_states)
        if attn.upcast_attention:
            query, key = query.float(), key.float()
        # The 77 columns are few: one softmax serves both the record and the layer's own output.
        probabilities = ((query * attn.scale) @ key.transpose(-1, -2)).float().softmax(dim=-1)
        self.maps.append(torch.einsum("b...t,bnt->b...n", self.token_weights, probabilities.mean(dim=1)))
        if self.is_last:
            raise LastLayerReached
        return _output(attn, probabilities.to(value.dtype) @ value)


class _RecordSelf:
    """Attention processor of a self-attention layer whose queries and keys are wanted."""

    def __init__(self, recording: Recording, stride: int, is_last: bool) -> None:
        self.queries_keys = recording.queries_keys.setdefault(stride, [])
        self.is_last = is_last

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: None = None, **_: object
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, hidden_states)
        self.queries_keys.append((query, key))
        if self.is_last:
            raise LastLayerReached
        return _output(attn, F.scaled_dot_product_attention(query, key, value, scale=attn.scale))


def _project(
    attn: Attention, hidden_states: torch.Tensor, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value, each (B, heads, positions, d)."""
    query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
    return tuple(x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))


def _output(attn: Attention, heads: torch.Tensor) -> torch.Tensor:
    """From (B, heads, positions, d) to (B, positions, channels); dropout is off in a frozen model."""
    return attn.to_out[0](heads.transpose(1, 2).flatten(2))
