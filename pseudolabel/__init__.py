"""Pseudo-masks from images and image-level labels; `from pseudolabel import Segmenter` for single images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.stages.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: torch and diffusers take seconds."""
    if name == "Segmenter":
        from pseudolabel.stages.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module 'pseudolabel' has no attribute '{name}'")
