"""All attention of the U-Net for the classes of an image: layer by layer, head by head."""

from dataclasses import dataclass, replace

import torch

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.layers import AttentionLayer, attention_layers
from pseudolabel.diffusion.recording import read_attention
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample


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
        plain = replace(config, timesteps=[timestep], prompt="per_class", head_weights="mean")
        self.predictor = DiffSegmenterPredictor(context, plain)
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
        rows = list(self.predictor.rows([prompted]))
        latents = self.model.upload(torch.stack([row.latent for row in rows]))
        noise = self.model.upload(torch.stack([row.noise[0] for row in rows]))
        recording = read_attention(
            self.model,
            self.model.add_noise(latents, noise, torch.full((len(rows),), self.timestep)),
            self.timestep,
            torch.stack([row.embeddings for row in rows]),
            self.layers,
            self.model.upload(torch.cat([row.weights for row in rows])).float(),
            heads_by="each",
        )
        method, heads = self.predictor.method, self.predictor.config.cross_heads or slice(None)
        weighted = {layer: recording.cross[layer][:, heads].mean(1, keepdim=True) for layer in method.cross_layers}
        fused = method.fuse(weighted, latents.shape[-1])[:, 0]
        return Reading(recording.cross, recording.queries_keys, fused)
