"""A frozen text-to-image latent diffusion model, read but never sampled from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from pseudolabel.io.hub import DEFAULT_HUB, Hub

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class DiffusionModel:
    """The parts of a Stable Diffusion checkpoint that labelling needs, on one device in one dtype.

    Attributes:
        vae: encodes images to latents.
        unet: the denoiser whose attention is read.
        text_encoder, tokenizer: CLIP's, of the checkpoint.
        alphas_cumprod: float32 (T,) on the CPU, the share of signal variance left at each timestep.
        prediction: what the U-Net was trained to predict: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) z.
        image_size: side of the square images the U-Net is fed.
        name: hub id or folder of the checkpoint.
        hub: access to the hub, for further models that a method needs.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    alphas_cumprod: torch.Tensor
    prediction: Prediction
    image_size: int
    name: str
    hub: Hub = DEFAULT_HUB

    def __repr__(self) -> str:
        side, dtype = self.image_size, str(self.dtype).removeprefix("torch.")
        return f"DiffusionModel('{self.name}', {side} x {side} pixels, {dtype} on {self.device})"

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def vae_stride(self) -> int:
        """Image side over latent side; 8 in Stable Diffusion."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.image_size // self.vae_stride
        return (self.unet.config.in_channels, side, side)

    def square(self, image: Image.Image) -> Image.Image:
        """An RGB image stretched to the model's square, bilinear, antialiased; a square of that size is only copied."""
        return image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """The `square` of an RGB image as the VAE takes it: float32 (3, size, size) in [-1, 1]."""
        return torch.from_numpy(np.array(self.square(image))).permute(2, 0, 1).float() / 127.5 - 1

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """A CPU tensor where a CUDA device fetches it by itself; for other devices as it is."""
        return tensor.pin_memory() if self.device.type == "cuda" and tensor.device.type == "cpu" else tensor

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the model's device; the caller does not wait for what a CUDA device has yet to do."""
        return self.pin(tensor).to(self.device, non_blocking=self.device.type == "cuda")

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor, posterior_noise: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled latents of images.

        Args:
            pixels: (B, 3, size, size) in [-1, 1].
            posterior_noise: standard normal (B, c, h, w) to draw from the posterior; None takes its mean.

        Returns:
            float32 (B, c, h, w) on the model's device.
        """
        posterior = self.vae.encode(self.upload(pixels).to(self.dtype)).latent_dist
        latents = posterior.mean.float()
        if posterior_noise is not None:
            latents = latents + posterior.std.float() * self.upload(posterior_noise)
        return latents * self.vae.config.scaling_factor

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """z_t = sqrt(abar_t) z + sqrt(1 - abar_t) noise, row by row, on the model's device; timesteps int64 (B,)."""
        signal = self._signal(timesteps)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def run_unet(self, latents: torch.Tensor, timesteps: torch.Tensor | int, embeddings: torch.Tensor) -> torch.Tensor:
        """Output of the U-Net, which is noise or v by `prediction`: (B, c, h, w) in the model's dtype.

        Args:
            latents: (B, c, h, w) noised latents.
            timesteps: int64 (B,), or one for all latents.
            embeddings: (B, tokens, width) text embeddings.
        """
        if isinstance(timesteps, torch.Tensor):
            timesteps = self.upload(timesteps)
        latents, embeddings = (self.upload(tensor).to(self.dtype) for tensor in (latents, embeddings))
        return self.unet(latents, timesteps, embeddings).sample

    @torch.inference_mode()
    def predict_noise(self, noised: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """The noise that the U-Net sees in latents.

        Args:
            noised: float32 (B, c, h, w) latents z_t.
            timesteps: int64 (B,), on the CPU.
            embeddings: (B, tokens, width) text encodings.

        Returns:
            float32 (B, c, h, w) on the model's device.
        """
        noised = self.upload(noised)
        predicted = self.run_unet(noised, timesteps, embeddings).float()
        if self.prediction == "epsilon":
            return predicted
        signal = self._signal(timesteps)
        return signal.sqrt() * predicted + (1 - signal).sqrt() * noised

    def _signal(self, timesteps: torch.Tensor) -> torch.Tensor:
        """abar_t, row by row: float32 (B, 1, 1, 1)."""
        return self.upload(self.alphas_cumprod[timesteps.cpu()]).view(-1, 1, 1, 1)

    @torch.inference_mode()
    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Text encoder output of prompts, cut to the tokenizer's length: (B, tokens, width) in the model's dtype."""
        ids = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(self.upload(ids))[0]
