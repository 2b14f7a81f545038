"""Outlines of objects as COCO writes them, polygons or run lengths, turned into pixels."""

from typing import Any

import numpy as np


def rasterise(outline: Any, height: int, width: int) -> np.ndarray:
    """Draw one object.

    Run lengths are read here instead of by pycocotools, which leaves pixels undefined where the runs are too short.

    Args:
        outline: a list of polygons [x0, y0, x1, y1, ...], of which the union is taken; or run lengths down the columns,
            {"size": [height, width], "counts": ...}, as a list that starts with the pixels outside, or as COCO's
            compressed text.
        height: of the image.
        width: of the image.

    Returns:
        bool (height, width).

    Raises:
        ValueError: if the outline is of neither form or does not fit the image.
    """
    read = check_outline(outline, height, width)
    if isinstance(outline, list):
        from pycocotools import mask as coco

        return coco.decode(coco.merge(coco.frPyObjects(read, height, width))).view(bool)
    return np.repeat(np.arange(len(read)) % 2 == 1, read).reshape(width, height).T


def check_outline(outline: Any, height: int, width: int) -> list[Any]:
    """The polygons or the run lengths of an outline, checked as `rasterise` needs them but not drawn.

    Raises:
        ValueError: if the outline is of neither form or does not fit the image.
    """
    if isinstance(outline, list) and outline:
        return [_polygon(polygon, height, width) for polygon in outline]
    if isinstance(outline, dict) and outline.get("size") == [height, width] and "counts" in outline:
        return _runs(outline["counts"], height, width)
    raise ValueError(f"an outline must be polygons or run lengths of size [{height}, {width}], not {outline!r:.80}")


def _polygon(polygon: Any, height: int, width: int) -> list[float]:
    try:
        points = np.asarray(polygon, np.float64)
    except TypeError as error:
        raise ValueError(f"a polygon holds numbers, not {polygon!r:.80}") from error
    if points.ndim != 1 or points.size < 6 or points.size % 2:
        raise ValueError(f"a polygon needs at least three pairs of x and y, not {polygon!r:.80}")
    # pycocotools walks along every edge in fifths of a pixel and keeps all of them.
    if not (np.abs(points) <= 2 * max(height, width)).all():
        raise ValueError(f"a polygon lies far outside the image of {width} x {height} pixels: {polygon!r:.80}")
    numbers: list[float] = points.tolist()
    return numbers


def _runs(counts: Any, height: int, width: int) -> list[int]:
    runs = _decompress(counts) if isinstance(counts, str) else counts
    is_list = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if not is_list or sum(runs) != height * width:
        raise ValueError(f"run lengths must be whole numbers that add up to {height * width} pixels: {counts!r:.80}")
    return runs


def _decompress(counts: str) -> list[int]:
    """Run lengths from COCO's text.

    It holds numbers of base 32 with a sign, least digit first; from the fourth on, each is the difference to the number
    two places before it.
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"'{character}' is no digit of compressed run lengths")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs
