"""The number format in which frozen models run."""

import os

import torch

from pseudolabel.errors import SettingError

LAUNCHED = {"bf16": torch.bfloat16, "fp16": torch.float16}  # by the words of `accelerate launch --mixed_precision`


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of weights and activations.

    `auto` is what `accelerate launch --mixed_precision` asks for, else bfloat16 on CUDA devices that have it, float16
    on other CUDA devices, and float32 elsewhere.

    Raises:
        SettingError: if `auto` meets a mixed precision other than no, bf16 and fp16.
    """
    if name != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched in LAUNCHED:
        return LAUNCHED[launched]
    if launched != "no":
        raise SettingError(
            f"accelerate launch --mixed_precision {launched}: frozen models run in no, bf16 or fp16; launch with one "
            "of these, or give `model.dtype`"
        )
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
