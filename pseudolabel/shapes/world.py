"""Shapes: a procedural world of six textured shape classes on textured backgrounds, with exact masks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pseudolabel.shapes.difficulty import EASY, Difficulty

SIZE = 128
BLOB_RADIUS = (9.0, 22.0)
VISIBLE_SHARE = 0.5
SUPERSAMPLING = 4
PLACEMENT_TRIES = 40
BACKGROUNDS = ("grass", "sand", "water", "stone")


@dataclass(frozen=True)
class Scene:
    """A drawn image with its ground truth.

    Attributes:
        image: RGB, `size` x `size`.
        labels: uint8 (size, size); 0 is background, 1..6 the classes of the `shapes` vocabulary.
        objects: uint8 (size, size); 0 is background, 1.. the objects in drawing order.
        classes: sorted class indices that are visible in `labels`.
        background: one of `BACKGROUNDS`.
    """

    image: Image.Image
    labels: np.ndarray
    objects: np.ndarray
    classes: tuple[int, ...]
    background: str


def _star_outline(points: int, inner: float) -> np.ndarray:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _regular_outline(points: int, rotation: float = 0.0) -> np.ndarray:
    angles = np.arange(points) * 2 * np.pi / points - np.pi / 2 + rotation
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _cross_outline(arm: float) -> np.ndarray:
    corner = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    return np.array(corner + [(-x, -y) for x, y in corner], dtype=float)


def _heart_outline() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], 1) / 16


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(u * 1.1)


def _checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sign(np.sin(u * 0.55) * np.sin(v * 0.55))


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.where(np.cos(u * 0.7) + np.cos(v * 0.7) > 0.9, 1.0, -0.6)


def _rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(np.hypot(u, v) * 0.9)


def _waves(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(v * 0.9 + 2.0 * np.sin(u * 0.3))


def _weave(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.7 * (np.sin((u + v) * 0.8) + np.sin((u - v) * 0.8))


@dataclass(frozen=True)
class ShapeClass:
    """Outline, (points, 2) in the unit circle; hue in [0, 1); texture, a function of pixel coordinates to [-1, 1]."""

    outline: np.ndarray
    hue: float
    texture: Callable[[np.ndarray, np.ndarray], np.ndarray]


# In the order of vocabularies/shapes.yaml: circle, square, triangle, star, cross, heart.
SHAPE_CLASSES = (
    ShapeClass(_regular_outline(72), 0.00, _stripes),
    ShapeClass(_regular_outline(4, np.pi / 4), 0.50, _checks),
    ShapeClass(_regular_outline(3), 0.33, _dots),
    ShapeClass(_star_outline(5, 0.5), 0.15, _rings),
    ShapeClass(_cross_outline(0.42), 0.67, _waves),
    ShapeClass(_heart_outline(), 0.84, _weave),
)


@dataclass(frozen=True)
class _Place:
    """Where an object lies: coverage, float (size, size) in [0, 1]; centre (2,) and radius in pixels; angle."""

    coverage: np.ndarray
    centre: np.ndarray
    radius: float
    angle: float

    @property
    def area(self) -> int:
        return int((self.coverage >= 0.5).sum())


def draw_scene(rng: np.random.Generator, size: int = SIZE, difficulty: Difficulty = EASY) -> Scene:
    """Draw 1 to 3 objects of distinct classes, each at least half visible, on a textured background.

    Args:
        rng: the only source of randomness.
        size: side of the image in pixels; objects scale with it.
        difficulty: ranges of colours, and what else lies in the scene.
    """
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    pixels = _draw_background(rng, background, size, difficulty)
    for _ in range(rng.integers(difficulty.blobs + 1) if difficulty.blobs else 0):
        _draw_blob(rng, pixels)
    objects = np.zeros((size, size), np.uint8)
    places: list[_Place] = []
    drawn: list[int] = []
    wanted = rng.choice(len(SHAPE_CLASSES), rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]), replace=False)
    for index in wanted:
        place = _place(rng, SHAPE_CLASSES[index], objects, places, difficulty)
        if place is None:
            continue
        colour = _paint(rng, SHAPE_CLASSES[index], place, difficulty)
        pixels += place.coverage[..., None] * (colour - pixels)
        drawn.append(int(index) + 1)
        objects[place.coverage >= 0.5] = len(drawn)
        places.append(place)
    pixels += rng.normal(0, 0.02, pixels.shape)
    labels = np.array([0, *drawn], np.uint8)[objects]
    image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    return Scene(image, labels, objects, tuple(sorted(drawn)), background)


def _place(
    rng: np.random.Generator, shape: ShapeClass, objects: np.ndarray, places: list[_Place], difficulty: Difficulty
) -> _Place | None:
    """A place that keeps half of every earlier object visible; None if no such place is found."""
    size = len(objects)
    for _ in range(PLACEMENT_TRIES):
        radius = rng.uniform(*difficulty.radius) * size / SIZE
        centre = _centre(rng, radius, size, places, difficulty.touching)
        angle = rng.uniform(-0.5, 0.5)
        coverage = _rasterise(shape.outline, centre, radius, angle, size)
        left = np.bincount(objects[coverage < 0.5], minlength=len(places) + 1)[1:]
        if all(left >= VISIBLE_SHARE * np.array([place.area for place in places])):
            return _Place(coverage, centre, radius, angle)
    return None


def _centre(rng: np.random.Generator, radius: float, size: int, places: list[_Place], touching: float) -> np.ndarray:
    """A centre anywhere in the image, or beside an earlier object."""
    inside = 0.6 * radius, size - 0.6 * radius
    if places and touching and rng.random() < touching:
        other, angle = places[rng.integers(len(places))], rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.6, 0.9) * (other.radius + radius)
        return (other.centre + distance * np.array([np.cos(angle), np.sin(angle)])).clip(*inside)
    return rng.uniform(*inside, 2)


def _rasterise(outline: np.ndarray, centre: np.ndarray, radius: float, angle: float, size: int) -> np.ndarray:
    """Share of each pixel inside the outline: float (size, size) in [0, 1]."""
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (outline @ rotation.T * radius + centre) * SUPERSAMPLING
    canvas = Image.new("L", (size * SUPERSAMPLING,) * 2)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _paint(rng: np.random.Generator, shape: ShapeClass, place: _Place, difficulty: Difficulty) -> np.ndarray:
    """The object's RGB at every pixel, float (size, size, 3): the class's hue and texture, and a dark rim."""
    rows, columns = np.mgrid[: place.coverage.shape[0], : place.coverage.shape[1]] * (SIZE / place.coverage.shape[0])
    x, y = columns - place.centre[0], rows - place.centre[1]
    u, v = np.cos(place.angle) * x + np.sin(place.angle) * y, np.cos(place.angle) * y - np.sin(place.angle) * x
    brightness = rng.uniform(*difficulty.brightness) + 0.17 * shape.texture(u, v)
    hue = shape.hue + rng.uniform(-difficulty.hue_jitter, difficulty.hue_jitter)
    colour = brightness[..., None] * _hue(hue, rng.uniform(*difficulty.saturation))
    solid = Image.fromarray((place.coverage >= 0.5).astype(np.uint8) * 255)
    inside = np.asarray(solid.filter(ImageFilter.MinFilter(5))) > 0
    return np.where(inside[..., None], colour, 0.45 * colour)


def _draw_blob(rng: np.random.Generator, pixels: np.ndarray) -> None:
    """Draw a smooth unlabelled shape of any hue, without texture or rim, into float (size, size, 3) pixels."""
    size = len(pixels)
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = [rng.uniform(0, 0.15) * np.sin(count * turns + rng.uniform(0, 2 * np.pi)) for count in (2, 3, 4)]
    outline = (1 + np.sum(waves, 0))[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
    radius = rng.uniform(*BLOB_RADIUS) * size / SIZE
    coverage = _rasterise(outline, rng.uniform(0, size, 2), radius, 0.0, size)
    shade = rng.uniform(0.45, 0.85) * (1 + 0.1 * _noise(rng, size, 4))
    pixels += coverage[..., None] * (shade[..., None] * _hue(rng.uniform(), rng.uniform(0.2, 0.6)) - pixels)


def _hue(hue: float, saturation: float) -> np.ndarray:
    """RGB in [0, 1] of a hue at full value."""
    channels = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return 1 - saturation * (1 - channels.clip(0, 1))


def _draw_background(rng: np.random.Generator, kind: str, size: int, difficulty: Difficulty) -> np.ndarray:
    """Float (size, size, 3) in about [0, 1]: a muted colour, smooth shading and a texture of its kind."""
    colours = {
        "grass": (0.42, 0.5, 0.34),
        "sand": (0.66, 0.6, 0.48),
        "water": (0.4, 0.5, 0.56),
        "stone": (0.5, 0.5, 0.5),
    }
    rows = np.mgrid[:size, :size][0] * (SIZE / size)
    shade = 0.12 * _noise(rng, size, 4) + 0.05 * _noise(rng, size, 16)
    if kind == "grass":
        shade += 0.09 * _noise(rng, size, 48)
    elif kind == "sand":
        shade += rng.normal(0, 0.05, (size, size))
    elif kind == "water":
        shade += 0.08 * np.sin(rows * 0.5 + 3 * _noise(rng, size, 5))
    else:
        shade += 0.09 * np.sign(_noise(rng, size, 12))
    colour = np.array(colours[kind])
    colour = difficulty.ground_chroma * colour + (1 - difficulty.ground_chroma) * colour.mean()
    colour = colour * rng.uniform(0.75, 1.2) + rng.normal(0, difficulty.ground_tint, 3)
    return colour * (1 + shade[..., None])


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise with about `cells` bumps per side: float (size, size), mostly in [-1, 1]."""
    coarse = Image.fromarray(rng.normal(0, 0.6, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def caption(names: list[str], background: str) -> str:
    """A scene's caption, such as `a photograph of circle and star on grass`."""
    return f"a photograph of {' and '.join(names)} on {background}"
