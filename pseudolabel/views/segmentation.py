"""One segmented image: its mask, a picture with a legend, and names with areas."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.io.images import mask_image
from pseudolabel.records import IGNORE
from pseudolabel.views.overlay import hatching, legend, mask_overlay
from pseudolabel.vocabulary import voc_palette

NARROWEST_LEGEND = 200


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a method makes of one image.

    Attributes:
        image: the RGB image.
        labels: uint8 (H, W); 0 is background, 255 was left out, and every other value has a name.
        names: name by label; regions without a class are called `region 1`, `region 2` and so on.
    """

    image: Image.Image
    labels: np.ndarray
    names: dict[int, str]

    @property
    def mask(self) -> Image.Image:
        """A palette image whose values are the labels."""
        return mask_image(self.labels)

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image by name, in [0, 1]."""
        return {name: float((self.labels == label).mean()) for label, name in self.names.items()}

    def overlay(self) -> Image.Image:
        """The mask painted over the image, with a legend below: RGB, at least as wide as the legend needs."""
        palette = voc_palette()
        painted = Image.fromarray(mask_overlay(np.asarray(self.image), self.labels, palette))
        entries = [(name, palette[label]) for label, name in self.names.items()] or [("background only", palette[0])]
        if (self.labels == IGNORE).any():
            entries.append(("left out", hatching((15, 22))))
        below = legend(entries, max(painted.width, NARROWEST_LEGEND))
        picture = Image.new("RGB", (below.width, painted.height + below.height), "white")
        picture.paste(painted, (0, 0))
        picture.paste(below, (0, painted.height))
        return picture

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the size, and label, name, pixels and share of every class."""
        classes = [
            {"label": label, "name": name, "pixels": int((self.labels == label).sum()), "share": self.areas[name]}
            for label, name in self.names.items()
        ]
        return {"width": self.image.width, "height": self.image.height, "classes": classes}
