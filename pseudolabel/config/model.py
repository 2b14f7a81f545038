"""Settings of the diffusion model."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """The frozen text-to-image diffusion model.

    Args:
        name: hub id or folder of a checkpoint of Stable Diffusion 1.x or 2.x, SDXL or SSD-1B in diffusers' layout, or
            `shapes`, the small model that ships with the package; or the path of a single `.safetensors` file of
            Stable Diffusion 1.x, 2.x or SDXL, as A1111, ComfyUI and Civitai have them.
        revision: branch, tag or commit on the hub.
        variant: variant of the weights' files, such as `fp16`; empty for the plain files, or for fp16 where there are
            no others.
        dtype: precision of weights and activations. `auto` is the precision of `accelerate launch --mixed_precision` if
            given; else bfloat16 on CUDA devices that have it, float16 on other CUDA devices, bfloat16 on processors
            that compute it natively if a short trial shows that it is faster, and float32 elsewhere. The VAE of SDXL is
            float32 in each, unless its configuration says that it need not be.
        image_size: side in pixels of the square that images are resized to, ignoring aspect ratio; 0 is the
            checkpoint's own.
        prediction: what the U-Net predicts, which the ELBO baseline reads; `auto` is what the checkpoint says. A single
            file says nothing: `auto` is then `epsilon`, and for Stable Diffusion 2.x `v_prediction` at 768 pixels;
            `epsilon` is for those of 512 pixels.
        vae: folder or hub id of another VAE than the checkpoint's own, `AutoencoderKL`, or a tiny one such as
            `madebyollin/taesd`, which is fast and approximate; empty for the checkpoint's.
        lora: a LoRA, as a `.safetensors` file: its changes are added to the weights of the U-Net and the text encoders.
            Empty for none.
        lora_scale: factor on the LoRA's changes.
        compile: compile the U-Net's and the VAE's residual blocks and feed-forward layers, for long runs on CUDA
            devices; the first batch of a run takes minutes longer.
    """

    name: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str = "main"
    variant: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    image_size: int = 0
    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"
    vae: str = ""
    lora: str = ""
    lora_scale: float = 1.0
    compile: bool = False
