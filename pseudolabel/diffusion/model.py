"""A frozen text-to-image latent diffusion model; nothing is sampled from it."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pseudolabel.errors import SettingError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.runtime.halving import Halving

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class DiffusionModel:
    """The parts of a Stable Diffusion or SDXL checkpoint that labelling needs, on one device in one dtype.

    The VAE's dtype may be float32 where that of the others is not.

    Attributes:
        vae: encodes images to latents.
        unet: the denoiser whose attention is read.
        text_encoder, tokenizer: CLIP's, of the checkpoint. The tokenizer tells which token is which word.
        alphas_cumprod: float32 (T,) on the CPU, the fraction of signal variance at each timestep.
        prediction: what the U-Net was trained to predict: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) z.
        image_size: side in pixels of the square images that the model takes.
        name: hub id or folder of the checkpoint.
        hub: access to the hub, for further models that a method needs.
        text_encoder_2, tokenizer_2: those of SDXL, which has two of each; None for Stable Diffusion 1.x and 2.x. Both
            tokenizers have the same tokens, and differ in the one that fills a sentence up, `!` in the second.
        in_parts: encodes fewer images at once where memory is too small.
    """

    vae: AutoencoderKL | AutoencoderTiny
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    alphas_cumprod: torch.Tensor
    prediction: Prediction
    image_size: int
    name: str
    hub: Hub = DEFAULT_HUB
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    in_parts: Halving = field(default_factory=Halving, repr=False, compare=False)

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
        """Image side over latent side; 8 in Stable Diffusion and SDXL."""
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
        """A CPU tensor in pinned memory if the model is on a CUDA device, else unchanged."""
        return tensor.pin_memory() if self.device.type == "cuda" and tensor.device.type == "cpu" else tensor

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the model's device; a CUDA device copies it asynchronously."""
        return self.pin(tensor).to(self.device, non_blocking=self.device.type == "cuda")

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor, posterior_noise: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled latents of images.

        Args:
            pixels: (B, 3, size, size) in [-1, 1].
            posterior_noise: standard normal (B, c, h, w) to draw from the posterior; None takes its mean.

        Returns:
            float32 (B, c, h, w) on the model's device.

        Raises:
            SettingError: if there is noise, and a tiny VAE without a posterior.
        """
        return torch.cat(self.in_parts(self._encode, pixels, posterior_noise))

    def _encode(self, pixels: torch.Tensor, posterior_noise: torch.Tensor | None) -> torch.Tensor:
        encoded = self.vae.encode(self.upload(pixels).to(self.vae.dtype))
        if isinstance(self.vae, AutoencoderTiny):
            if posterior_noise is not None:
                raise SettingError(
                    "`model.vae`: a tiny VAE has no posterior to draw latents from; set the method's `vae` to mean"
                )
            return encoded.latents.float() * self.vae.config.scaling_factor
        posterior = encoded.latent_dist
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
            embeddings: (B, rows, width) text embeddings, as `encode_text` gives them.
        """
        if isinstance(timesteps, torch.Tensor):
            timesteps = self.upload(timesteps)
        latents, embeddings = (self.upload(tensor).to(self.dtype) for tensor in (latents, embeddings))
        if self.text_encoder_2 is None:
            return self.unet(latents, timesteps, embeddings).sample
        pooled = embeddings[:, -1, : self.text_encoder_2.config.projection_dim]
        added = {"text_embeds": pooled, "time_ids": self._time_ids(len(latents))}
        return self.unet(latents, timesteps, embeddings[:, :-1], added_cond_kwargs=added).sample

    def _time_ids(self, count: int) -> torch.Tensor:
        """What SDXL is told of an image: its own size, the crop's corner and the crop's size, float32 (count, 6).

        Every image is a full square of the model's size, whatever it was before it was stretched.
        """
        side = self.image_size
        return self.upload(torch.tensor([side, side, 0, 0, side, side]).float()).expand(count, -1)

    @torch.inference_mode()
    def predict_noise(self, noised: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """The noise that the U-Net predicts in latents.

        Args:
            noised: float32 (B, c, h, w) latents z_t.
            timesteps: int64 (B,), on the CPU.
            embeddings: (B, rows, width) text embeddings, as `encode_text` gives them.

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
        """Text embeddings of prompts, truncated to the tokenizer's length: (B, rows, width) in the model's dtype.

        The rows are the tokens. In SDXL a token's row is what the last layer but one of each encoder gives, side by
        side, and one more row follows the tokens: the second encoder's embedding of the sentence, filled up with zeros.
        """
        ids = self._token_ids(self.tokenizer, prompts)
        if self.text_encoder_2 is None or self.tokenizer_2 is None:
            return self.text_encoder(ids)[0]
        first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(self._token_ids(self.tokenizer_2, prompts), output_hidden_states=True)
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled = F.pad(second.text_embeds, (0, tokens.shape[-1] - second.text_embeds.shape[-1]))
        return torch.cat([tokens, pooled[:, None]], 1)

    def _token_ids(self, tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
        return self.upload(tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids)
