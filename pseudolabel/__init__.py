"""Pseudo-masks from images and image-level labels.

Importing it is quick: what it offers is imported when it is asked for, since torch and diffusers take seconds.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.methods.registry import Context, Method
    from pseudolabel.methods.registry import register as register_method
    from pseudolabel.records import LabelMap, Sample, ScoreMaps
    from pseudolabel.shards.dataset import ShardDataset
    from pseudolabel.stages.segmenter import Segmenter

    __version__: str

__all__ = [
    "Context",
    "LabelMap",
    "Method",
    "Sample",
    "ScoreMaps",
    "Segmenter",
    "ShardDataset",
    "__version__",
    "register_method",
]

_HOMES = {
    "Context": "pseudolabel.methods.registry:Context",
    "LabelMap": "pseudolabel.records:LabelMap",
    "Method": "pseudolabel.methods.registry:Method",
    "Sample": "pseudolabel.records:Sample",
    "ScoreMaps": "pseudolabel.records:ScoreMaps",
    "Segmenter": "pseudolabel.stages.segmenter:Segmenter",
    "ShardDataset": "pseudolabel.shards.dataset:ShardDataset",
    "register_method": "pseudolabel.methods.registry:register",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # a copy that is not installed has none
        return metadata.version("pseudolabel")
    if name not in _HOMES:
        raise AttributeError(f"module 'pseudolabel' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
