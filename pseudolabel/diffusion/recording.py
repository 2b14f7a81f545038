"""Reading attention from a frozen U-Net in one forward pass that ends after the last layer that is needed."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from pseudolabel.diffusion.layers import AttentionLayer, attention_layers
from pseudolabel.diffusion.model import DiffusionModel


@dataclass
class Recording:
    """Attention of one forward pass over B latents, by stride, in the order of the layers.

    Attributes:
        cross: one map per cross-attention layer, float32 (B, h*w), or (B, C, h*w) for token weights (B, C, tokens):
            softmax over all tokens (DiffSegmenter, Eq. 4), mean over heads, weighted sum over tokens. With
            `each_head`, (B, heads, h*w), without the mean.
        queries_keys: (B, heads, h*w, d) queries and keys per self-attention layer, in the model's dtype.
    """

    cross: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    queries_keys: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)


class LastLayerReached(Exception):
    """Raised inside a forward pass to end it after the last layer that is needed."""


@torch.inference_mode()
def read_attention(
    model: DiffusionModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor | int,
    embeddings: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    cross_strides: Collection[int] = (),
    self_strides: Collection[int] = (),
    each_head: bool = False,
) -> Recording:
    """Run the U-Net as far as needed and record attention at the given strides.

    Args:
        model: the diffusion model; its attention processors are restored at the end.
        latents: (B, c, h, w) noised latents.
        timesteps: int64 (B,), or one for all latents.
        embeddings: (B, tokens, width) text embeddings.
        token_weights: float32 (B, tokens) on the model's device, or (B, C, tokens) for C maps of each latent: how much
            each token's cross-attention counts in the map. Needed for cross-attention only.
        cross_strides: strides at which cross-attention is recorded.
        self_strides: strides at which queries and keys of self-attention are recorded.
        each_head: record the cross-attention of every head, for token weights (B, tokens).

    Raises:
        ValueError: if the U-Net has no such layer.
    """
    layers = _wanted_layers(attention_layers(model.unet, model.vae_stride), cross_strides, self_strides)
    recording = Recording()
    # Only these layers are changed: setting all processors takes a third of the Python time of a forward pass.
    modules = [model.unet.get_submodule(layer.name) for layer in layers]
    before = [module.get_processor() for module in modules]
    for module, layer in zip(modules, layers, strict=True):
        module.set_processor(_recorder(recording, layer, token_weights, each_head, is_last=layer is layers[-1]))
    try:
        with suppress(LastLayerReached):
            model.run_unet(latents, timesteps, embeddings)
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)
    return recording


def _recorder(
    recording: Recording, layer: AttentionLayer, token_weights: torch.Tensor | None, each_head: bool, is_last: bool
) -> "_RecordCross | _RecordSelf":
    if layer.kind == "self":
        return _RecordSelf(recording.queries_keys.setdefault(layer.stride, []), is_last)
    assert token_weights is not None, "cross-attention is recorded as a weighted sum over tokens"
    return _RecordCross(recording.cross.setdefault(layer.stride, []), token_weights, each_head, is_last)


def _wanted_layers(
    layers: list[AttentionLayer], cross_strides: Collection[int], self_strides: Collection[int]
) -> list[AttentionLayer]:
    for kind, strides in {"cross": cross_strides, "self": self_strides}.items():
        known = sorted({layer.stride for layer in layers if layer.kind == kind})
        missing = sorted(set(strides) - set(known))
        if missing:
            raise ValueError(f"the U-Net has no {kind}-attention at stride {missing[0]}; it has {known}")
    return [layer for layer in layers if layer.stride in (cross_strides if layer.kind == "cross" else self_strides)]


class _RecordCross:
    """Attention processor that appends a cross-attention layer's map to `maps`."""

    def __init__(self, maps: list[torch.Tensor], token_weights: torch.Tensor, each_head: bool, is_last: bool) -> None:
        self.maps = maps
        self.token_weights = token_weights
        self.each_head = each_head
        self.is_last = is_last

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: object
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, encoder_hidden_states)
        if attn.upcast_attention:
            query, key = query.float(), key.float()
        # With 77 tokens the matrix is small: one softmax serves both the map and the layer's own output.
        probabilities = ((query * attn.scale) @ key.transpose(-1, -2)).float().softmax(dim=-1)
        if self.each_head:
            self.maps.append(torch.einsum("bt,bhnt->bhn", self.token_weights, probabilities))
        else:
            self.maps.append(torch.einsum("b...t,bnt->b...n", self.token_weights, probabilities.mean(dim=1)))
        if self.is_last:
            raise LastLayerReached
        return _output(attn, probabilities.to(value.dtype) @ value)


class _RecordSelf:
    """Attention processor that appends a self-attention layer's queries and keys to `queries_keys`."""

    def __init__(self, queries_keys: list[tuple[torch.Tensor, torch.Tensor]], is_last: bool) -> None:
        self.queries_keys = queries_keys
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
