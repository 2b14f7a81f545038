"""Patch features of other vision models, to compare with the diffusion model's (FreeSeg-Diff, Table III)."""

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.io.pretrained import load_pretrained
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weights import weights_digest


class PatchFeatures:
    """A frozen vision transformer on one device: CLIP's image side, ViT, DINOv2."""

    def __init__(self, name: str, device: torch.device, hub: Hub = DEFAULT_HUB) -> None:
        """Load the checkpoint, safetensors only.

        Args:
            name: hub id or folder; `shapes` is the small CLIP that ships.
            device: the device it runs on.
            hub: access to the hub.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.folder, setting = resolve(name, "clip"), "`freesegdiff.backbone`"
        model, self.processor = load_pretrained(
            self.folder, AutoModel, AutoImageProcessor, device, "a vision transformer", setting, hub
        )
        self.model = getattr(model, "vision_model", model)
        self.image_size, self.patch_size = self.model.config.image_size, self.model.config.patch_size

    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_digest(self.folder)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """An RGB image stretched to the model's square and normalised: float32 (3, size, size)."""
        side = {"height": self.image_size, "width": self.image_size}
        return self.processor(images=image, size=side, do_center_crop=False, return_tensors="pt").pixel_values[0]

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last layer's patch tokens: from `pixels` (B, 3, size, size) to float32 (B, d, h, h)."""
        patches = self.image_size // self.patch_size
        # The class token and DINOv2's registers come before the patches.
        tokens = self.model(pixels.to(self.model.device, self.model.dtype)).last_hidden_state[:, -(patches**2) :]
        return tokens.float().mT.unflatten(-1, (patches, patches))
