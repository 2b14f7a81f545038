"""Outlines of the pieces of a mask, along the edges of pixels or through the centres of border pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label
from scipy.spatial import cKDTree

_EIGHT = np.ones((3, 3), int)
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up
_INSIDE = ((0, 0), (0, -1), (-1, -1), (-1, 0))  # from an edge's first corner to the pixel on its right hand


@dataclass(frozen=True)
class Loop:
    """A closed outline; the mask is on its right hand.

    Attributes:
        corners: int (N, 2), row and column of the pixel corners where it turns.
        pixels: int (M, 2), row and column of the border pixels that it passes, in its order.
    """

    corners: np.ndarray
    pixels: np.ndarray

    @property
    def is_hole(self) -> bool:
        """Whether it goes around a hole, counterclockwise."""
        rows, columns = self.corners.T
        return bool((columns * np.roll(rows, -1) - np.roll(columns, -1) * rows).sum() < 0)


def connected_pieces(mask: np.ndarray, corners: bool = True) -> list[np.ndarray]:
    """The connected pieces of a mask, bool (H, W) each.

    Args:
        mask: bool (H, W).
        corners: whether pixels are connected that share a corner alone. Else each piece has one outline and its holes.
    """
    numbered, count = label(mask, _EIGHT if corners else None)
    return [numbered == number for number in range(1, count + 1)]


def trace(mask: np.ndarray) -> list[Loop]:
    """All outlines of a mask, bool (H, W); pixels that share a corner alone have outlines of their own."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (0, 1), (1, 1), (1, 0))  # the first corner of a pixel's upper, right, lower and left edge
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (other, (row, column)) in enumerate(zip(neighbours, starts, strict=True)):
        for corner in (np.argwhere(inner & ~other) + np.array([row, column])).tolist():
            leaving.setdefault((corner[0], corner[1]), []).append(direction)
    open_edges = {(corner, direction) for corner, directions in leaving.items() for direction in directions}
    return [
        _follow(corner, direction, leaving, open_edges)
        for corner, directions in leaving.items()
        for direction in directions
        if (corner, direction) in open_edges
    ]


Corner = tuple[int, int]


def _follow(
    first: Corner, heading: int, leaving: Mapping[Corner, Sequence[int]], open_edges: set[tuple[Corner, int]]
) -> Loop:
    """The outline that begins with an edge; its edges are no longer open."""
    corner, direction, before = first, heading, -1
    corners: list[Corner] = []
    pixels: list[Corner] = []
    while (corner, direction) in open_edges:
        open_edges.remove((corner, direction))
        if direction != before:
            corners.append(corner)
        pixel = (corner[0] + _INSIDE[direction][0], corner[1] + _INSIDE[direction][1])
        if not pixels or pixels[-1] != pixel:
            pixels.append(pixel)
        corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
        right, before = (direction + 1) % 4, direction
        # Where two edges leave a corner, the one to the right stays with the piece.
        direction = right if right in leaving[corner] else leaving[corner][0]
    if before == heading:
        del corners[0]  # it does not turn there
    if len(pixels) > 1 and pixels[0] == pixels[-1]:
        del pixels[-1]
    return Loop(np.array(corners), np.array(pixels))


def with_holes(outer: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """One closed path around a piece and its holes: slits lead to the holes and back.

    Args:
        outer: int (N, 2), the points of the outline.
        holes: int (M, 2) each, the points around each hole.
    """
    path, left = outer, list(holes)
    while left:
        # The nearest hole comes first, so that no slit crosses another one.
        found = [cKDTree(path).query(hole) for hole in left]
        nearest = min(range(len(left)), key=lambda number: found[number][0].min())
        distances, places = found[nearest]
        start = int(distances.argmin())
        hole, place = left.pop(nearest), int(places[start])
        around = np.concatenate([hole[start:], hole[: start + 1]])
        path = np.concatenate([path[: place + 1], around, path[place:]])
    return path


def without_straight(path: np.ndarray) -> np.ndarray:
    """A closed path, int (N, 2), without the points at which it goes straight on."""
    before, after = path - np.roll(path, 1, 0), np.roll(path, -1, 0) - path
    kept = (np.sign(before) != np.sign(after)).any(1) | (np.abs(before).max(1) > 1) | (np.abs(after).max(1) > 1)
    return path[kept] if kept.any() else path
