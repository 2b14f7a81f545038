"""The attention layers of a diffusers U-Net: names, kinds and strides."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pseudolabel.errors import SettingError

_EXECUTION_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer.

    Attributes:
        name: the module's path in the U-Net, such as `up_blocks.3.attentions.2.transformer_blocks.0.attn1`.
        kind: `self` attends to the image's own positions, `cross` to the text's tokens.
        stride: downsampling factor, image side over the side of the layer's maps; 8 to 64 in Stable Diffusion, 16 and
            32 in SDXL.
    """

    name: str
    kind: Literal["self", "cross"]
    stride: int


def attention_layers(unet: UNet2DConditionModel, vae_stride: int) -> list[AttentionLayer]:
    """All attention layers of a U-Net in the order in which a forward pass reaches them."""
    last = len(unet.config.block_out_channels) - 1
    names = [name for name, module in unet.named_modules() if isinstance(module, Attention)]
    names.sort(key=lambda name: _EXECUTION_ORDER[name.split(".")[0]])
    return [AttentionLayer(name, _kind(name), vae_stride * 2 ** level(name, last)) for name in names]


def at_strides(
    layers: Iterable[AttentionLayer], kind: Literal["self", "cross"], strides: Collection[int]
) -> list[AttentionLayer]:
    """The layers of a kind at some strides."""
    return [layer for layer in layers if layer.kind == kind and layer.stride in strides]


def numbered(
    layers: Iterable[AttentionLayer], kind: Literal["self", "cross"], numbers: Collection[int], setting: str
) -> list[AttentionLayer]:
    """The layers of a kind with these numbers, in the order of execution.

    Raises:
        SettingError: naming the setting, if there is no such layer, or one is there twice.
    """
    if len(set(numbers)) < len(numbers):
        raise SettingError(f"`{setting}` {list(numbers)}: a layer is there twice")
    known = [layer for layer in layers if layer.kind == kind]
    if not all(0 <= number < len(known) for number in numbers):
        last = len(known) - 1
        raise SettingError(f"`{setting}` {list(numbers)}: this model has {kind}-attention layers 0 to {last}")
    return [layer for number, layer in enumerate(known) if number in numbers]


def _kind(name: str) -> Literal["self", "cross"]:
    return "self" if name.endswith("attn1") else "cross"


def level(name: str, last: int) -> int:
    """How many times the latent has been halved at the module `name`, in a U-Net whose deepest level is `last`."""
    part, *rest = name.split(".")
    if part == "mid_block":
        return last
    block = int(rest[0])
    return block if part == "down_blocks" else last - block
