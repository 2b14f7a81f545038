"""All attention of the U-Net for the classes of an image: layer by layer, head by head."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.layers import AttentionLayer, attention_layers
from pseudolabel.diffusion.recording import read_attention
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Reading:
    """Attention in one forward pass for the C classes of an image, each with its own prompt.

    Attributes:
        cross: float32 (C, heads, n) maps of the class's tokens by cross-attention layer.
        queries_keys: (C, heads, n, d) queries and keys by self-attention layer.
        fused: float32 (C, h, w), DiffSegmenter's weighted sum of cross-attention maps (Eq. 5).
    """

    cross: dict[AttentionLayer, torch.Tensor]
    queries_keys: dict[AttentionLayer, tuple[torch.Tensor, torch.Tensor]]
    fused: torch.Tensor


class AttentionReader:
    """Reads every attention layer, with DiffSegmenter's prompts, latents and noise."""

    def __init__(self, context: Context, config: DiffSegmenterConfig, timestep: int) -> None:
        """Check the settings against the model.

        Raises:
            SettingError: if the timestep or the weights do not fit this model.
        """
        self.model, self.timestep = context.diffusion, timestep
        self.predictor = DiffSegmenterPredictor(context, replace(config, timesteps=[timestep]))
        self.layers = attention_layers(self.model.unet, self.model.vae_stride)

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Reading:
        """Read a sample with at least one class.

        Raises:
            SampleError: if a prompt does not fit the text encoder.
        """
        prompted = self.predictor.prompt(sample)
        if prompted.failure is not None:
            raise prompted.failure
        pairs = list(self.predictor.pairs([prompted]))
        latents = self.model.upload(torch.stack([pair.latent for pair in pairs]))
        noise = self.model.upload(torch.stack([pair.noise[0] for pair in pairs]))
        recording = read_attention(
            self.model,
            self.model.add_noise(latents, noise, torch.full((len(pairs),), self.timestep)),
            self.timestep,
            torch.stack([pair.embeddings for pair in pairs]),
            self.model.upload(torch.stack([pair.weights for pair in pairs])).float(),
            {layer.stride for layer in self.layers if layer.kind == "cross"},
            {layer.stride for layer in self.layers if layer.kind == "self"},
            each_head=True,
        )
        heads_mean = {stride: [heads.mean(1) for heads in maps] for stride, maps in recording.cross.items()}
        fused = self.predictor.method.fuse(heads_mean, latents.shape[-1])
        return Reading(
            dict(self._by_layer("cross", recording.cross)),
            dict(self._by_layer("self", recording.queries_keys)),
            fused,
        )

    def _by_layer(self, kind: str, recorded: dict[int, list[T]]) -> Iterator[tuple[AttentionLayer, T]]:
        """What was recorded by stride, by layer; both are in the order of execution."""
        iterators = {stride: iter(values) for stride, values in recorded.items()}
        return ((layer, next(iterators[layer.stride])) for layer in self.layers if layer.kind == kind)
