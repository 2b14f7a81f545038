"""Compiling the parts of a model in which memory traffic costs more than arithmetic."""

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

# Blocks of one kind share compiled code, a variant for each shape; Stable Diffusion's U-Net and VAE need 26.
VARIANTS = 64


def compile_parts(model: nn.Module) -> None:
    """Compile residual blocks and feed-forward layers in place, for each shape when it first occurs.

    Attention is not compiled, because it is replaced while it is recorded and may end the forward pass.
    """
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    for module in model.modules():
        if isinstance(module, (ResnetBlock2D, FeedForward)):
            module.forward = torch.compile(module.forward, dynamic=False)
