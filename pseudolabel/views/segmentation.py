"""One segmented image: its scores or labels, a figure with a legend, and names with areas."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.io.images import mask_image
from pseudolabel.records import IGNORE
from pseudolabel.views.overlay import hatching, heat_overlay, legend, mask_overlay
from pseudolabel.vocabulary import voc_palette

NARROWEST_LEGEND = 200


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The result of a method for one image; notebooks display its overlay.

    Attributes:
        image: the RGB image, upright.
        labels: uint8 (H, W); 0 is background, 255 is ignored, and every other value has a name. None where a method
            gives scores only.
        names: name by label, of the labels or of the scores' classes; regions without a class are `region 1`,
            `region 2` and so on.
        scores: float32 (C, H, W) in [0, 1], the class activation maps; None where a method gives labels only.
        confidence: float32 (H, W) in [0, 1], the probability of each pixel's label; None where there is none.
        classes: names of the C classes of `scores`; empty without scores.
    """

    image: Image.Image
    labels: np.ndarray | None
    names: dict[int, str]
    scores: np.ndarray | None = None
    confidence: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = (
            [f"{name} {share:.1%}" for name, share in self.areas.items()] if self.labels is not None else self.classes
        )
        size = f"{self.image.width} x {self.image.height} pixels"
        return f"Segmentation({', '.join([size, *found])})"

    @property
    def mask(self) -> Image.Image:
        """A palette image whose values are the labels."""
        return mask_image(self._decided())

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image by name, in [0, 1]."""
        labels = self._decided()
        return {name: float((labels == label).mean()) for label, name in self.names.items()}

    def overlay(self) -> Image.Image:
        """The image with the labels, or without labels the scores, in colours, and a legend below: RGB."""
        palette, image = voc_palette(), np.asarray(self.image)
        entries = [(name, palette[label]) for label, name in self.names.items()] or [("background only", palette[0])]
        if self.labels is not None:
            painted = Image.fromarray(mask_overlay(image, self.labels, palette))
            if (self.labels == IGNORE).any():
                entries.append(("ignored", hatching((15, 22))))
        else:
            assert self.scores is not None
            painted = Image.fromarray(heat_overlay(image, self.scores, palette[list(self.names)]))
        below = legend(entries, max(painted.width, NARROWEST_LEGEND))
        figure = Image.new("RGB", (below.width, painted.height + below.height), "white")
        figure.paste(painted, (0, 0))
        figure.paste(below, (0, painted.height))
        return figure

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the size, and label, name, pixels and share of every class."""
        labels, areas = self._decided(), self.areas
        classes = [
            {"label": label, "name": name, "pixels": int((labels == label).sum()), "share": areas[name]}
            for label, name in self.names.items()
        ]
        return {"width": self.image.width, "height": self.image.height, "classes": classes}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.overlay().save(buffer, "PNG")
        return buffer.getvalue()

    def _decided(self) -> np.ndarray:
        if self.labels is None:
            raise ValueError(
                "these are scores without labels; get labels with "
                "pseudolabel.refine(result.image, result.scores, result.names)"
            )
        return self.labels
