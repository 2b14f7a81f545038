"""Patch features of other vision models, to hold against the diffusion model's (FreeSeg-Diff, Table III)."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from pseudolabel.io.pretrained import load_pretrained
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weights import weights_digest


class PatchFeatures:
    """A frozen vision transformer on one device: CLIP's image side, ViT, DINOv2."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the checkpoint, safetensors only.

        Args:
            name: hub id or folder; `shapes` is the small CLIP that ships.
            device: where it runs.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.folder, setting = resolve(name, "clip"), "`freesegdiff.backbone`"
        self._whole, self.processor = load_pretrained(
            self.folder, AutoModel, AutoImageProcessor, device, "a vision transformer", setting
        )
        self.model = getattr(self._whole, "vision_model", self._whole)
        self.image_size, self.patch_size = self.model.config.image_size, self.model.config.patch_size

    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_digest(self.folder)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """The last layer's patch tokens of RGB images, stretched to the model's square: float32 (B, d, h, h)."""
        side = {"height": self.image_size, "width": self.image_size}
        inputs = self.processor(images=list(images), size=side, do_center_crop=False, return_tensors="pt")
        pixels = inputs.pixel_values.to(self.model.device, self.model.dtype)
        patches = self.image_size // self.patch_size
        # The class token, and DINOv2's registers, stand before the patches.
        tokens = self.model(pixels).last_hidden_state[:, -(patches**2) :]
        return tokens.float().mT.unflatten(-1, (patches, patches))
