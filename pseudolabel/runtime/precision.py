"""The dtype of frozen models."""

import os
import time
from functools import cache

import torch
import torch.nn.functional as F

from pseudolabel.errors import SettingError

# Of a processor's instructions that compute bfloat16, as torch names them.
NATIVE = ("amx_bf16", "avx512_bf16", "bf16")
LARGE = 10**8  # parameters from which on a model may gain
CHANNELS, SIDE, ROUNDS = 320, 64, 4
GAIN = 1.3  # how many times as fast bfloat16 must be

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
    return torch.bfloat16 if computes_bfloat16(device) else torch.float16


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device computes bfloat16 natively; where it is emulated, it is many times as slow as float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in NATIVE)


def gains_from_bfloat16(parameters: int) -> bool:
    """Whether this processor runs a model of so many parameters markedly faster in bfloat16 than in float32.

    Small models gain nothing. For others a convolution is tried, once in a process; its size is that of Stable
    Diffusion's first level, where processors with such instructions are about twice as fast, so that all processes come
    to the same answer.
    """
    return parameters >= LARGE and computes_bfloat16(torch.device("cpu")) and _is_faster()


@cache
def _is_faster() -> bool:
    return _seconds(torch.float32) > GAIN * _seconds(torch.bfloat16)


@torch.inference_mode()
def _seconds(dtype: torch.dtype) -> float:
    """Of a 3 x 3 convolution, the best of several."""
    image = torch.zeros(1, CHANNELS, SIDE, SIDE, dtype=dtype)
    kernel = torch.zeros(CHANNELS, CHANNELS, 3, 3, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        F.conv2d(image, kernel, padding=1)
        best = min(best, time.perf_counter() - started)
    return best
