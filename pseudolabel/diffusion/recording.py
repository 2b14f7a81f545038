"""Reading attention from a frozen U-Net in one forward pass that ends after the last layer that is needed."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from pseudolabel.diffusion.layers import AttentionLayer, attention_layers
from pseudolabel.diffusion.model import DiffusionModel

T = TypeVar("T")
HeadsBy = Literal["mean", "output", "each"]


@dataclass
class Recording:
    """Attention of one forward pass over B latents, by layer.

    Attributes:
        cross: float32 (B, n), or (B, C, n) for token weights (B, C, tokens): softmax over all tokens (DiffSegmenter,
            Eq. 4), mean over heads or weighted by their output, weighted sum over tokens. With `heads_by: each`,
            (B, heads, n), without the mean.
        queries_keys: (B, heads, n, d) queries and keys of self-attention, in the model's dtype.
    """

    cross: dict[AttentionLayer, torch.Tensor] = field(default_factory=dict)
    queries_keys: dict[AttentionLayer, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


def by_stride(recorded: Mapping[AttentionLayer, T]) -> dict[int, list[T]]:
    """What was recorded, with the layers of a stride together."""
    levels: dict[int, list[T]] = {}
    for layer, value in recorded.items():
        levels.setdefault(layer.stride, []).append(value)
    return levels


class LastLayerReached(Exception):
    """Raised inside a forward pass to end it after the last layer that is needed."""


@torch.inference_mode()
def read_attention(
    model: DiffusionModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor | int,
    embeddings: torch.Tensor,
    layers: Collection[AttentionLayer],
    token_weights: torch.Tensor | None = None,
    heads: torch.Tensor | None = None,
    heads_by: HeadsBy = "mean",
) -> Recording:
    """Run the U-Net as far as needed and record attention of some layers.

    Args:
        model: the diffusion model; its attention processors are restored at the end.
        latents: (B, c, h, w) noised latents.
        timesteps: int64 (B,), or one for all latents.
        embeddings: (B, rows, width) text embeddings, as the model's `encode_text` gives them.
        layers: those that are recorded.
        token_weights: float32 (B, tokens) on the model's device, or (B, C, tokens) for C maps of each latent: how much
            each token's cross-attention counts in the map. Needed for cross-attention only.
        heads: int64 numbers of the heads of cross-attention that are averaged, on the model's device; None for all.
        heads_by: the maps of cross-attention's heads are averaged (`mean`), weighted at every position by their share
            in the layer's `output`, or recorded one by one (`each`, for token weights (B, tokens)).
    """
    recording = Recording()
    layers = [layer for layer in attention_layers(model.unet, model.vae_stride) if layer in layers]
    # Only these layers are changed: setting all processors takes a third of the Python time of a forward pass.
    modules = [model.unet.get_submodule(layer.name) for layer in layers]
    before = [module.get_processor() for module in modules]
    for module, layer in zip(modules, layers, strict=True):
        if layer.kind == "self":
            module.set_processor(_RecordSelf(recording, layer, layer is layers[-1]))
        else:
            assert token_weights is not None, "cross-attention is recorded as a weighted sum over tokens"
            module.set_processor(_RecordCross(recording, layer, layer is layers[-1], token_weights, heads, heads_by))
    try:
        with suppress(LastLayerReached):
            model.run_unet(latents, timesteps, embeddings)
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)
    return recording


class _RecordCross:
    """Attention processor that records a cross-attention layer's map, or each head's."""

    def __init__(
        self,
        recording: Recording,
        layer: AttentionLayer,
        is_last: bool,
        token_weights: torch.Tensor,
        heads: torch.Tensor | None,
        heads_by: HeadsBy,
    ) -> None:
        self.recording, self.layer, self.is_last = recording, layer, is_last
        self.token_weights, self.heads, self.heads_by = token_weights, heads, heads_by

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: object
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, encoder_hidden_states)
        if attn.upcast_attention:
            query, key = query.float(), key.float()
        # With 77 tokens the matrix is small: one softmax serves both the map and the layer's own output.
        probabilities = ((query * attn.scale) @ key.transpose(-1, -2)).float().softmax(dim=-1)
        self.recording.cross[self.layer] = self._maps(attn, probabilities, value)
        if self.is_last:
            raise LastLayerReached
        return _output(attn, probabilities.to(value.dtype) @ value)

    def _maps(self, attn: Attention, probabilities: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if self.heads_by == "each":
            return torch.einsum("bt,bhnt->bhn", self.token_weights, probabilities)
        if self.heads_by == "output":
            mixed = torch.einsum("bhn,bhnt->bnt", head_shares(attn, probabilities, value), probabilities)
        else:
            chosen = probabilities if self.heads is None else probabilities.index_select(1, self.heads)
            mixed = chosen.mean(dim=1)
        return torch.einsum("b...t,bnt->b...n", self.token_weights, mixed)


class _RecordSelf:
    """Attention processor that records a self-attention layer's queries and keys."""

    def __init__(self, recording: Recording, layer: AttentionLayer, is_last: bool) -> None:
        self.recording, self.layer, self.is_last = recording, layer, is_last

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: None = None, **_: object
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, hidden_states)
        self.recording.queries_keys[self.layer] = query, key
        if self.is_last:
            raise LastLayerReached
        return _output(attn, F.scaled_dot_product_attention(query, key, value, scale=attn.scale))


def _project(
    attn: Attention, hidden_states: torch.Tensor, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value, each (B, heads, positions, d)."""
    query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
    return tuple(x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))


def head_shares(attn: Attention, probabilities: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """How much each head adds to a layer's output at each position (GoCA, CVPR 2026).

    w_h = <o_h, O> / |O|^2 with o_h the head's part of the output O = sum of o_h, without the output's bias. With
    y = O W and x the heads' results side by side, <o_h, O> is the sum of x y over the head's channels.

    Args:
        attn: the layer.
        probabilities: float32 (B, heads, n, tokens), after the softmax.
        value: (B, heads, tokens, d).

    Returns:
        float32 (B, heads, n); sums to 1 over the heads, may be negative. 1 / heads where the output is 0.
    """
    weight = attn.to_out[0].weight.float()
    results = probabilities @ value.float()
    output = results.transpose(1, 2).flatten(2) @ weight.T
    products = results * (output @ weight).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    length = output.square().sum(-1)[:, None]
    return torch.where(length > 0, products.sum(-1) / length, 1 / attn.heads)


def _output(attn: Attention, heads: torch.Tensor) -> torch.Tensor:
    """From (B, heads, positions, d) to (B, positions, channels); dropout is off in a frozen model."""
    return attn.to_out[0](heads.transpose(1, 2).flatten(2))
