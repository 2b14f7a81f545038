from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pseudolabel.diffusion.layers import attention_layers
from tests.plain.architectures import SSD_LAYERS, V15_UNET, XL_UNET, loaded


def stable_diffusion_v15_layers():
    with torch.device("meta"):
        return attention_layers(UNet2DConditionModel(**V15_UNET), vae_stride=8)


def test_stable_diffusion_has_five_layers_at_each_resolution_and_one_in_the_middle():
    count = Counter((layer.kind, layer.stride) for layer in stable_diffusion_v15_layers())
    each = {8: 5, 16: 5, 32: 5, 64: 1}
    assert count == {(kind, stride): number for kind in ("self", "cross") for stride, number in each.items()}


def test_stable_diffusion_layers_by_name():
    layers = stable_diffusion_v15_layers()
    strides = [8] * 4 + [16] * 4 + [32] * 4 + [64] * 2 + [32] * 6 + [16] * 6 + [8] * 6
    assert [layer.stride for layer in layers] == strides
    assert [layer.kind for layer in layers] == ["self", "cross"] * 16
    names = [layer.name for layer in layers]
    assert names[0] == "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert names[12] == "mid_block.attentions.0.transformer_blocks.0.attn1"
    assert names[14] == "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert names[31] == "up_blocks.3.attentions.2.transformer_blocks.0.attn2"


@pytest.mark.parametrize(
    ("changes", "deep", "shallow", "middle"), [({}, 60, 10, 10), (SSD_LAYERS, 26, 8, 0)], ids=["SDXL", "SSD-1B"]
)
def test_sdxl_has_no_layers_at_the_highest_resolution(changes, deep, shallow, middle):
    """At 1024 pixels its maps are 64 x 64 and 32 x 32."""
    with torch.device("meta"):
        layers = attention_layers(UNet2DConditionModel(**XL_UNET | changes), vae_stride=8)
    count = Counter((layer.kind, layer.stride) for layer in layers)
    assert count == {(kind, stride): n for kind in ("self", "cross") for stride, n in ((32, deep), (16, shallow))}
    assert sum(layer.name.startswith("mid_block") for layer in layers) == 2 * middle
    assert layers[0].name == "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert layers[-1].name.startswith("up_blocks.1.attentions.2.transformer_blocks.")


@pytest.mark.parametrize("name", ["tiny", "tiny_v2", "shapes", "tiny_xl", "tiny_ssd"])
def test_a_forward_pass_reaches_the_layers_in_this_order_and_size(name):
    model = loaded(name)
    reached = []
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: reached.append((name, inputs[0].shape[1])),
        )
        for name, module in model.unet.named_modules()
        if isinstance(module, Attention)
    ]
    with torch.inference_mode():
        model.run_unet(torch.zeros(1, *model.latent_shape), 1, model.encode_text([""]))
    for handle in handles:
        handle.remove()
    layers = attention_layers(model.unet, model.vae_stride)
    assert reached == [(layer.name, (model.image_size // layer.stride) ** 2) for layer in layers]
