"""DiffSegmenter (Wang et al. 2023): cross-attention of a class's tokens, completed by self-attention."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.layers import attention_layers
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.recording import Recording, read_attention
from pseudolabel.errors import SettingError
from pseudolabel.score_maps import min_max, square


class CompletedAttention:
    """Score maps of (image, class) pairs from one noised forward pass per timestep."""

    def __init__(self, model: DiffusionModel, config: DiffSegmenterConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if a timestep, a stride or the weights do not fit this model.
        """
        self.model, self.config = model, config
        layers = attention_layers(model.unet, model.vae_stride)
        self.cross_strides = _weighted_strides(config.level_weights, {x.stride for x in layers if x.kind == "cross"})
        self.self_strides = _completing_strides(config, {x.stride for x in layers if x.kind == "self"})
        steps = len(model.alphas_cumprod)
        if not config.timesteps or not all(0 <= t < steps for t in config.timesteps):
            raise SettingError(f"`diffsegmenter.timesteps` {config.timesteps}: give one or more from 0 to {steps - 1}")

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, noise: torch.Tensor, embeddings: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Score maps M_c of P pairs, Eq. 7 before normalisation.

        Args:
            latents: (P, c, h, w) scaled latents.
            noise: (P, T or 1, c, h, w) standard normal noise per timestep, or one for all.
            embeddings: (P, tokens, width) text encodings of the pairs' prompts.
            weights: (P, tokens) how much each token counts in the map; rows sum to 1.

        Returns:
            float32 (P, h, w).
        """
        model, steps = self.model, torch.tensor(self.config.timesteps)
        pairs, count = len(latents), len(steps)
        timesteps = steps.repeat(pairs)
        noise = model.upload(noise).expand(-1, count, -1, -1, -1).flatten(0, 1)
        noised = model.add_noise(model.upload(latents).repeat_interleave(count, 0), noise, timesteps)
        embeddings = model.upload(embeddings).to(model.dtype).repeat_interleave(count, 0)
        weights = model.upload(weights).float().repeat_interleave(count, 0)
        recording = read_attention(model, noised, timesteps, embeddings, weights, self.cross_strides, self.self_strides)
        fused = self.fuse(recording.cross, noised.shape[-1])
        if self.config.timestep_average == "product_of_means":
            fused = fused.unflatten(0, (pairs, count)).mean(1, keepdim=True).expand(-1, count, -1, -1).flatten(0, 1)
        return self._complete(fused, recording).unflatten(0, (pairs, count)).mean(1)

    def fuse(self, cross: Mapping[int, list[torch.Tensor]], side: int) -> torch.Tensor:
        """Weighted sum over resolutions (Eq. 5): float32 (B, side, side).

        Args:
            cross: float32 (B, n) maps by stride, one for each layer; see `Recording`.
            side: height and width of the sum.
        """
        total = torch.zeros(side, side, device=self.model.device)
        for stride in self.cross_strides:
            maps = square(torch.stack(cross[stride]).mean(0))
            if self.config.level_norm == "before":
                maps = min_max(maps)
            maps = _resize(maps, side)
            if self.config.level_norm == "after":
                maps = min_max(maps)
            total = total + self.config.level_weights[stride] * maps
        return total

    def _complete(self, fused: torch.Tensor, recording: Recording) -> torch.Tensor:
        """Mean over the chosen self-attention layers of A vec(fused), each at its own resolution (Eqs. 6 and 7)."""
        layers = [layer for stride in self.self_strides for layer in recording.queries_keys[stride]]
        if not layers:
            return fused
        side, total = fused.shape[-1], torch.zeros_like(fused)
        for query, key in layers:
            own = int(query.shape[2] ** 0.5)
            total += _resize(square(propagate(query, key, _resize(fused, own).flatten(1))), side)
        return total / len(layers)


def propagate(query: torch.Tensor, key: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean over heads of softmax(Q K^T / sqrt d) v, without the attention matrix in memory.

    Args:
        query, key: (B, heads, n, d).
        values: float32 (B, n).

    Returns:
        float32 (B, n).
    """
    # Rows sum to 1, so a constant passes through unchanged; without the mean, half precision keeps more digits.
    mean = values.mean(1, keepdim=True)
    own = (values - mean).to(query.dtype)[:, None, :, None].expand(-1, query.shape[1], -1, 1)
    # The fused kernels need values as wide as the keys: the map is the first column, the others are zeros.
    padded = F.pad(own, (0, query.shape[-1] - 1))
    return F.scaled_dot_product_attention(query, key, padded)[..., 0].float().mean(1) + mean


def _resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]


def _weighted_strides(weights: Mapping[int, float], known: set[int]) -> list[int]:
    chosen = sorted(stride for stride, weight in weights.items() if weight)
    if not chosen or not set(chosen) <= known or min(weights.values()) < 0:
        raise SettingError(
            f"`diffsegmenter.level_weights` {dict(weights)}: give weights of at least 0 for some of the strides at "
            f"which this model has cross-attention, {sorted(known)}"
        )
    return chosen


def _completing_strides(config: DiffSegmenterConfig, known: set[int]) -> list[int]:
    if config.self_attention == "strides":
        chosen = sorted(set(config.self_attention_strides))
        if not chosen or not set(chosen) <= known:
            raise SettingError(
                f"`diffsegmenter.self_attention_strides` {chosen}: this model has self-attention at {sorted(known)}"
            )
        return chosen
    return {"none": [], "all": sorted(known), "highest": [min(known)]}[config.self_attention]
