"""A run as one self-contained HTML page."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from pseudolabel.vocabulary import voc_palette

IMAGE_SIDE = 288  # pixels of the longer side; 300 images with maps and masks stay below 20 MB
MAP_SIDE = 96


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: above it.
        heads: of the columns; empty where they have none.
        rows: of text.
        is_folded: whether it is opened by a click.
        bars: the lengths in [0, 1] of bars behind the text, one for each row, by column.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_folded: bool = False
    bars: Mapping[int, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One sample of the gallery; images are data URIs, empty where there are none.

    Attributes:
        key: the sample's key.
        classes: labels of its classes.
        image: JPEG.
        maps: a grey PNG of the scores of each class, 255 for 1.
        mask, truth: grey PNGs of label values.
        confidence: of the mask, in [0, 1].
        source: `human` for a corrected mask, else `machine`.
    """

    key: str
    classes: Sequence[int]
    image: str
    maps: Sequence[str] = ()
    mask: str = ""
    truth: str = ""
    confidence: float | None = None
    source: str = "machine"


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Attributes:
        title: of the page.
        tables: in their order.
        bins: number of images by confidence, in equal steps; empty without confidences.
        span: the least confidence of the first step and the greatest of the last one.
        plots: title and data URI of each plot.
        names: class names by label.
        threshold: background threshold of the score maps at which the slider begins.
        pictures: the gallery.
        note: how the gallery's samples were chosen.
    """

    title: str
    tables: Sequence[Table]
    bins: Sequence[int]
    plots: Sequence[tuple[str, str]]
    names: Sequence[str]
    threshold: float
    pictures: Sequence[Picture] = field(default_factory=list)
    note: str = ""
    span: tuple[float, float] = (0.0, 1.0)


def render(page: Page) -> bytes:
    """The page as UTF-8 HTML; nothing in it is loaded from elsewhere, and text is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("pseudolabel.views").joinpath("report.html").read_text("utf-8"))
    colours = voc_palette()[: len(page.names)].tolist()
    data = {
        "pictures": [asdict(picture) for picture in page.pictures],
        "names": list(page.names),
        "palette": voc_palette().tolist(),
        "threshold": page.threshold,
    }
    # `<` cannot end the script element, nor begin a comment in it.
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return template.render(page=page, colours=colours, tallest=max(page.bins, default=0), data=text).encode()


def photo_uri(image: Image.Image) -> str:
    """An RGB image, reduced, as JPEG."""
    return _uri(_reduced(image, IMAGE_SIDE, Image.Resampling.LANCZOS), "JPEG", quality=78)


def labels_uri(labels: np.ndarray) -> str:
    """uint8 (H, W) labels, reduced without mixing them, as grey PNG."""
    return _uri(_reduced(Image.fromarray(labels), IMAGE_SIDE, Image.Resampling.NEAREST), "PNG", optimize=True)


def scores_uri(scores: np.ndarray) -> str:
    """float32 (H, W) scores in [0, 1], reduced, as grey PNG."""
    grey = Image.fromarray((scores * 255).round().astype(np.uint8))
    return _uri(_reduced(grey, MAP_SIDE, Image.Resampling.BOX), "PNG", optimize=True)


def file_uri(png: bytes) -> str:
    """A PNG file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _reduced(image: Image.Image, side: int, filter_: Image.Resampling) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), filter_)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
