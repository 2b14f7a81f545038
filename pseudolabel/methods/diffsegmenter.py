"""DiffSegmenter (Wang et al. 2023): cross-attention of a class's tokens, completed by self-attention."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from pseudolabel.config import SD_LEVEL_WEIGHTS, DiffSegmenterConfig
from pseudolabel.diffusion.layers import AttentionLayer, at_strides, attention_layers, numbered
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.recording import Recording, by_stride, read_attention
from pseudolabel.errors import SettingError
from pseudolabel.methods.affinity import check_affinity, spread
from pseudolabel.score_maps import min_max, square

log = logging.getLogger(__name__)

TINY = torch.finfo(torch.float32).tiny  # of the maps that fill up a batch and are zero


class CompletedAttention:
    """Score maps of an image's classes from one noised forward pass per timestep and prompt."""

    def __init__(self, model: DiffusionModel, config: DiffSegmenterConfig) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if a timestep, a stride, a layer, a head or the weights do not fit this model.
        """
        layers = attention_layers(model.unet, model.vae_stride)
        if model.text_encoder_2 is not None:
            config = _of_xl(config, layers)
        self.model, self.config = model, config
        self.cross_layers = _cross_layers(config, layers)
        self.level_weights = _level_weights(config.level_weights, self.cross_layers)
        self.self_layers = _self_layers(config, layers)
        for kind, chosen in {"cross": self.cross_layers, "self": self.self_layers}.items():
            _check_heads(model, f"{kind}_heads", getattr(config, f"{kind}_heads"), chosen)
            _check_weights(model, kind, chosen)
        # Uploaded once: a list as an index would be copied to the device, and waited for, in every forward pass.
        self.cross_heads, self.self_heads = (
            torch.tensor(heads, device=model.device) if heads else None
            for heads in (config.cross_heads, config.self_heads)
        )
        steps = len(model.alphas_cumprod)
        if not config.timesteps or not all(0 <= t < steps for t in config.timesteps):
            raise SettingError(f"`diffsegmenter.timesteps` {config.timesteps}: give one or more from 0 to {steps - 1}")
        check_affinity(config)
        if config.head_weights == "output" and config.cross_heads:
            raise SettingError(
                f"`diffsegmenter.cross_heads` {config.cross_heads}: `head_weights: output` weighs all heads of a layer "
                "by what they add to its output; leave `cross_heads` empty, or take `head_weights: mean`"
            )

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, noise: torch.Tensor, embeddings: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Score maps M_c of the K classes that each of P prompts names, Eq. 7 before normalisation.

        Args:
            latents: (P, c, h, w) scaled latents.
            noise: (P, T or 1, c, h, w) standard normal noise per timestep, or one for all.
            embeddings: (P, rows, width) text encodings of the prompts.
            weights: (P, K, tokens) how much each token counts in the class's map; rows sum to 1, or are 0 where a
                prompt names fewer classes.

        Returns:
            float32 (P, K, h, w).
        """
        model, steps = self.model, torch.tensor(self.config.timesteps)
        prompts, count = len(latents), len(steps)
        timesteps = steps.repeat(prompts)
        noise = model.upload(noise).expand(-1, count, -1, -1, -1).flatten(0, 1)
        noised = model.add_noise(model.upload(latents).repeat_interleave(count, 0), noise, timesteps)
        embeddings = model.upload(embeddings).to(model.dtype).repeat_interleave(count, 0)
        weights = model.upload(weights).float().repeat_interleave(count, 0)
        layers = [*self.cross_layers, *self.self_layers]
        recording = read_attention(
            model, noised, timesteps, embeddings, layers, weights, self.cross_heads, self.config.head_weights
        )
        fused = self.fuse(recording.cross, noised.shape[-1])
        if self.config.timestep_average == "product_of_means":
            fused = fused.unflatten(0, (prompts, count)).mean(1).repeat_interleave(count, 0)
        return self._complete(fused, recording).unflatten(0, (prompts, count)).mean(1)

    def fuse(self, cross: Mapping[AttentionLayer, torch.Tensor], side: int) -> torch.Tensor:
        """Weighted sum over resolutions (Eq. 5): float32 (B, K, side, side).

        Args:
            cross: float32 (B, K, n) maps of the cross-attention layers; see `Recording`.
            side: height and width of the sum.
        """
        total = torch.zeros(side, side, device=self.model.device)
        for stride, level in sorted(by_stride(cross).items()):
            maps = square(torch.stack(level).mean(0))
            if self.config.level_norm == "before":
                maps = min_max(maps)
            if self.config.level_norm == "sum":
                maps = maps / maps.sum((-2, -1), keepdim=True).clamp_min(TINY)
            maps = _resize(maps, side)
            if self.config.level_norm == "after":
                maps = min_max(maps)
            total = total + self.level_weights[stride] * maps
        return total

    def _complete(self, fused: torch.Tensor, recording: Recording) -> torch.Tensor:
        """Mean over the chosen self-attention layers of P^k vec(fused), each at its own resolution (Eqs. 6 and 7)."""
        if not self.self_layers:
            return fused
        side, total = fused.shape[-1], torch.zeros_like(fused)
        for layer in self.self_layers:
            query, key = recording.queries_keys[layer]
            if self.self_heads is not None:
                query, key = query.index_select(1, self.self_heads), key.index_select(1, self.self_heads)
            own = int(query.shape[2] ** 0.5)
            total += _resize(square(spread(query, key, _resize(fused, own).flatten(2), self.config)), side)
        return total / len(self.self_layers)


def _resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def _of_xl(config: DiffSegmenterConfig, layers: Sequence[AttentionLayer]) -> DiffSegmenterConfig:
    """The default weights without those of strides at which SDXL has no attention; other weights as they are."""
    if config.level_weights != SD_LEVEL_WEIGHTS:
        return config
    known = {layer.stride for layer in layers}
    weights = {stride: weight for stride, weight in SD_LEVEL_WEIGHTS.items() if stride in known}
    log.info(
        "SDXL has fewer resolutions: of the default `diffsegmenter.level_weights`, %s are used, unmeasured", weights
    )
    return replace(config, level_weights=weights)


def _cross_layers(config: DiffSegmenterConfig, layers: Sequence[AttentionLayer]) -> list[AttentionLayer]:
    """The layers that are read: those with numbers, or else all of the weighted strides."""
    cross = [layer for layer in layers if layer.kind == "cross"]
    known = sorted({layer.stride for layer in cross})
    if config.cross_layers:
        cross = numbered(layers, "cross", config.cross_layers, "diffsegmenter.cross_layers")
    if isinstance(config.level_weights, str):
        return cross
    strides = _weighted_strides(config.level_weights, known)
    if config.cross_layers and {layer.stride for layer in cross} != set(strides):
        raise SettingError(
            f"`diffsegmenter.cross_layers` {config.cross_layers} have the strides "
            f"{sorted({layer.stride for layer in cross})}, but `level_weights` weigh {strides}"
        )
    return [layer for layer in cross if layer.stride in strides]


def _level_weights(given: Mapping[int, float] | str, cross: Sequence[AttentionLayer]) -> Mapping[int, float]:
    """The weight of each stride; by `resolution`, a layer counts as 1 / its number of positions (GoCA)."""
    if not isinstance(given, str):
        return given
    whole = sum(layer.stride**2 for layer in cross)
    return {stride: count * stride**2 / whole for stride, count in Counter(layer.stride for layer in cross).items()}


def _self_layers(config: DiffSegmenterConfig, layers: Sequence[AttentionLayer]) -> list[AttentionLayer]:
    if config.self_attention == "layers":
        if not config.self_layers:
            raise SettingError("`diffsegmenter.self_attention` is layers: say which with `diffsegmenter.self_layers`")
        return numbered(layers, "self", config.self_layers, "diffsegmenter.self_layers")
    if config.self_layers and config.self_attention == "highest":  # the default, so `layers` was forgotten
        raise SettingError(
            f"`diffsegmenter.self_layers` {config.self_layers} would not be read: add `self_attention: layers`, or set "
            "them to []"
        )
    strides = _completing_strides(config, {layer.stride for layer in layers if layer.kind == "self"})
    return at_strides(layers, "self", strides)


def _check_weights(model: DiffusionModel, kind: str, layers: Sequence[AttentionLayer]) -> None:
    """A layer that was not trained, such as those of `shapes_standard`, attends equally to everything."""
    weights = [model.unet.get_submodule(layer.name).to_q.weight for layer in layers]
    if weights and not any(bool(weight.any()) for weight in weights):
        names = ", ".join(layer.name for layer in layers)
        raise SettingError(
            f"the {kind}-attention layers that are read have weights of zero, so every map would be constant: {names}; "
            "`pseudolabel probe` shows which layers say something"
        )


def _check_heads(model: DiffusionModel, name: str, heads: Sequence[int], layers: Sequence[AttentionLayer]) -> None:
    fewest = min((model.unet.get_submodule(layer.name).heads for layer in layers), default=0)
    if len(set(heads)) < len(heads):
        raise SettingError(f"`diffsegmenter.{name}` {list(heads)}: a head is there twice")
    if heads and layers and not all(0 <= head < fewest for head in heads):
        raise SettingError(f"`diffsegmenter.{name}` {list(heads)}: the chosen layers have heads 0 to {fewest - 1}")


def _weighted_strides(weights: Mapping[int, float], known: Sequence[int]) -> list[int]:
    chosen = sorted(stride for stride, weight in weights.items() if weight)
    setting = f"`diffsegmenter.level_weights` {dict(weights)}"
    if unknown := sorted(set(chosen) - set(known)):
        raise SettingError(
            f"{setting}: this model has no cross-attention at stride {', '.join(map(str, unknown))}, only at "
            f"{list(known)}; give weights for these. A model that ships has an experiment file of its name (`config`), "
            "with settings that fit"
        )
    if not chosen or min(weights.values()) < 0:
        raise SettingError(f"{setting}: give weights of at least 0, and one above 0, for strides among {list(known)}")
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
