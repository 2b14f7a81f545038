"""The VAE of the small diffusion models that ship: its start as a linear code of colours, and its training."""

import numpy as np
import torch
import torch.nn.functional as F
from descent import LOG_EVERY, build_optimiser, descend, smooth
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from rich.progress import Progress

from pseudolabel.shapes.world import SIZE, Scene

VAE_CROP = 64  # the VAE is convolutional: half-size crops train it four times as fast
KL_WEIGHT = 1e-6
INITIAL_LOG_VARIANCE = -6.0
CARRIED = 8  # RGB, -RGB and two constants
LEVEL = 1.5  # of the constants
COLOUR_VARIANCE = 0.12  # of pixels in [-1, 1]


def to_tensor(scenes: list[Scene]) -> torch.Tensor:
    """Float32 (n, 3, size, size) in [-1, 1]."""
    pixels = np.stack([np.asarray(scene.image) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def build_vae() -> AutoencoderKL:
    """From 128 x 128 x 3 to 32 x 32 x 4."""
    channels = (16, 32, 64)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=SIZE,
    )
    start_linear(vae)
    return vae


@torch.no_grad()
def start_linear(vae: AutoencoderKL) -> None:
    """Make the untrained VAE a linear code of block means, so that training starts from blurred images, not from grey.

    Every residual branch starts at zero. The plain path carries RGB, -RGB and two constants; the constants keep the
    group norms from dividing the colours away, and SiLU(x) - SiLU(-x) = x makes the signed pairs linear again.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                carry(module.conv_shortcut)
        elif isinstance(module, Attention):
            torch.nn.init.zeros_(module.to_out[0].weight)
            torch.nn.init.zeros_(module.to_out[0].bias)
        elif isinstance(module, Downsample2D):
            carry(module.conv)
            module.conv.weight[:] = 0
            for channel in range(CARRIED):
                module.conv.weight[channel, channel, :2, :2] = 0.25
        elif isinstance(module, Upsample2D):
            carry(module.conv)
    for first in (vae.encoder.conv_in, vae.decoder.conv_in):
        first.weight[:], first.bias[:] = 0, 0
        for channel in range(3):
            first.weight[channel, channel, 1, 1], first.weight[channel + 3, channel, 1, 1] = 1, -1
        first.bias[6], first.bias[7] = LEVEL, -LEVEL
    for last in (vae.encoder.conv_out, vae.decoder.conv_out):
        last.weight[:3], last.bias[:3] = 0, 0
        group = last.in_channels // vae.config.norm_num_groups
        sigma = ((2 * LEVEL**2 + 6 * COLOUR_VARIANCE) / group) ** 0.5
        for channel in range(3):
            last.weight[channel, channel, 1, 1], last.weight[channel, channel + 3, 1, 1] = sigma, -sigma
    for bottleneck in (vae.quant_conv, vae.post_quant_conv):
        torch.nn.init.dirac_(bottleneck.weight)
        torch.nn.init.zeros_(bottleneck.bias)
    vae.encoder.conv_out.weight[vae.config.latent_channels :] = 0
    vae.encoder.conv_out.bias[vae.config.latent_channels :] = INITIAL_LOG_VARIANCE


def carry(convolution: torch.nn.Conv2d) -> None:
    """Let the first channels through a convolution unchanged."""
    for parameter in convolution.parameters():
        torch.nn.init.zeros_(parameter)
    middle = convolution.kernel_size[0] // 2
    for channel in range(CARRIED):
        convolution.weight[channel, channel, middle, middle] = 1


def train_vae(vae: AutoencoderKL, scenes: list[Scene], steps: int, batch: int, seed: int) -> float:
    rng = np.random.default_rng([seed, 1])
    optimiser, schedule = build_optimiser([vae], 3e-4, steps)
    average = 0.0
    with Progress() as progress:
        for step in progress.track(range(steps), description="training the VAE"):
            pixels = to_tensor([scenes[i] for i in rng.integers(len(scenes), size=batch)]).to(vae.device)
            top, left = rng.integers(SIZE - VAE_CROP + 1, size=2)
            pixels = pixels[:, :, top : top + VAE_CROP, left : left + VAE_CROP]
            posterior = vae.encode(pixels).latent_dist
            loss = F.l1_loss(vae.decode(posterior.sample()).sample, pixels) + KL_WEIGHT * posterior.kl().mean()
            descend(loss, optimiser, [vae])
            schedule.step()
            average = smooth(average, float(loss.detach()), step)
            if step % LOG_EVERY == 0:
                progress.console.print(f"vae step {step} loss {average:.4f}")
    return average


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: list[Scene], batch: int = 64) -> torch.Tensor:
    """Encode all scenes, each before its mirror image, and set the VAE's scaling factor to give unit deviation."""
    chunks = []
    for start in range(0, len(scenes), batch):
        pixels = to_tensor(scenes[start : start + batch]).to(vae.device)
        chunks.append(torch.stack([vae.encode(p).latent_dist.mean for p in (pixels, pixels.flip(3))], 1).flatten(0, 1))
    latents = torch.cat(chunks)
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return latents * vae.config.scaling_factor
