"""The dtype of frozen models."""

import os

import torch

from pseudolabel.errors import SettingError

MIXED_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of `accelerate launch --mixed_precision`


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations.

    `auto` is the dtype of `accelerate launch --mixed_precision`, else bfloat16 on CUDA devices that have it, float16
    on other CUDA devices, and float32 elsewhere.

    Raises:
        SettingError: for `auto` with a mixed precision other than no, bf16 and fp16.
    """
    if name != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched in MIXED_PRECISIONS:
        return MIXED_PRECISIONS[launched]
    if launched != "no":
        raise SettingError(
            f"accelerate launch --mixed_precision {launched}: frozen models run in no, bf16 or fp16; launch with one "
            "of these, or give `model.dtype`"
        )
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
