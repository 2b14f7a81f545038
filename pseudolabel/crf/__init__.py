"""DenseCRF by itself: `TorchCrf` refines the scores of any segmenter, arrays or tensors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.crf.torch_crf import Refinement, TorchCrf

__all__ = ["Refinement", "TorchCrf"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pseudolabel.crf' has no attribute '{name}'")
    return getattr(import_module("pseudolabel.crf.torch_crf"), name)
