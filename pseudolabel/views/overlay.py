"""Overlays of masks and class activation maps on images, and the legend of their colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.views.font import legible

INK = (32, 33, 36)
HATCH_PERIOD = 8
HATCH = np.array([[255, 255, 255], [120, 124, 130]], np.float32)


def fade(image: np.ndarray, strength: float = 0.35) -> np.ndarray:
    """The image in light grey, so that colours over it stand out: uint8 (H, W, 3).

    Args:
        image: uint8 (H, W, 3), RGB.
        strength: contrast that is left, in [0, 1]; 0 is white.
    """
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((255 - strength * (255 - grey))[..., None], 3, 2).round().astype(np.uint8)


def mask_overlay(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, alpha: float = 0.65, outline: int = 1
) -> np.ndarray:
    """A mask over an image: uint8 (H, W, 3), RGB.

    Classes have the palette's colours, inside with opacity `alpha` and on the border opaque. Background shows the
    image. Ignored pixels (255) are hatched in white and grey.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W); 0 background, 1..N classes, 255 ignored.
        palette: uint8 (256, 3), RGB by label.
        alpha: opacity inside a class, in [0, 1].
        outline: width in pixels of the border, inside the class; 0 draws none.

    Raises:
        ValueError: if labels and image differ in size.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels {labels.shape} do not fit an image {image.shape}")
    opacity = np.where((labels == BACKGROUND) | (labels == IGNORE), 0, alpha)
    opacity[_borders(labels, outline) & (labels != BACKGROUND) & (labels != IGNORE)] = 1
    colour = palette[labels].astype(np.float32)
    ignored = labels == IGNORE
    colour[ignored] = hatching(labels.shape)[ignored]
    opacity[ignored] = 0.8
    return _blend(image, colour, opacity)


def heat_overlay(image: np.ndarray, scores: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Class activation maps over an image, each class in its colour: uint8 (H, W, 3).

    Every pixel has the colour of the class with the largest score; the opacity is 0.95 times the score.

    Args:
        image: uint8 (H, W, 3), RGB.
        scores: float32 (C, H, W) in [0, 1]; C may be 0.
        colours: uint8 (C, 3), RGB.

    Raises:
        ValueError: if the scores do not fit the image or the colours.
    """
    if scores.shape != (len(colours), *image.shape[:2]):
        raise ValueError(f"scores {scores.shape} do not fit an image {image.shape} and {len(colours)} colours")
    if not len(scores):
        return image.copy()
    return _blend(image, colours[scores.argmax(0)].astype(np.float32), 0.95 * scores.max(0))


def hatching(shape: tuple[int, int]) -> np.ndarray:
    """Diagonal stripes of white and grey: float32 (H, W, 3) in [0, 255]."""
    rows, columns = np.indices(shape)
    return HATCH[((rows + columns) % HATCH_PERIOD >= HATCH_PERIOD * 5 // 8).astype(int)]


def legend(entries: Sequence[tuple[str, np.ndarray]], width: int, size: int = 15) -> Image.Image:
    """Names beside patches of colour, in as many lines as they need: RGB, `width` pixels wide, on white.

    Args:
        entries: name and patch of each entry; a patch is one colour, uint8 (3,), or an image, (h, w, 3) in [0, 255],
            such as `hatching`, which is stretched over the patch.
        width: of the legend in pixels.
        size: font size in pixels.
    """
    names = [legible(name, size) for name, _ in entries]
    patch, gap, line = round(1.5 * size), round(0.5 * size), round(1.9 * size)
    places, x, y = [], 0, 0
    for name, font in names:
        advance = patch + gap + round(font.getlength(name)) + 2 * gap
        if x and x + advance > width:
            x, y = 0, y + line
        places.append((x, y))
        x += advance
    drawn = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(drawn)
    for (name, font), (_, fill), (x, y) in zip(names, entries, places, strict=True):
        drawn.paste(_patch(fill, (patch, size)), (x, y + (line - size) // 2))
        draw.text((x + patch + gap, y + line / 2), name, INK, font, anchor="lm")
    return drawn


def _patch(fill: np.ndarray, size: tuple[int, int]) -> Image.Image:
    if fill.ndim == 1:
        return Image.new("RGB", size, tuple(fill.tolist()))
    return Image.fromarray(fill.round().astype(np.uint8)).resize(size)


def _borders(labels: np.ndarray, width: int) -> np.ndarray:
    """Where another label is at most `width` pixels away in the row or column: bool (H, W)."""
    near = np.zeros(labels.shape, bool)
    for shift in range(1, width + 1):
        down = labels[shift:] != labels[:-shift]
        right = labels[:, shift:] != labels[:, :-shift]
        near[shift:] |= down
        near[:-shift] |= down
        near[:, shift:] |= right
        near[:, :-shift] |= right
    return near


def _blend(image: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    mixed = image + opacity[..., None] * (colour - image)
    return mixed.round().astype(np.uint8)
