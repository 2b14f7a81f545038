"""`yolo`: outlines in text files, as Ultralytics reads them for instance segmentation."""

import numpy as np
import yaml

from pseudolabel.exports.format import Collected, Encoded, Format, Settings
from pseudolabel.exports.outlines import connected_pieces, trace, with_holes, without_straight
from pseudolabel.exports.png import split_folders
from pseudolabel.exports.sample import MaskSample
from pseudolabel.records import BACKGROUND

_QUARTER = np.array([[-0.25, -0.25], [-0.25, 0.25], [0.25, 0.25], [0.25, -0.25]])


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`images/KEY.jpg` and `labels/KEY.txt`, a line for each piece: class from 0, then x and y of each point."""
    lines = [
        f"{label - 1} {' '.join(f'{value:.6f}' for value in outline(piece).ravel())}\n"
        for label in sample.classes
        for piece in connected_pieces(sample.labels == label, corners=False)
    ]
    name = sample.paired_name
    return Encoded({f"images/{name}.jpg": sample.image, f"labels/{name}.txt": "".join(lines).encode()}, {})


def outline(piece: np.ndarray) -> np.ndarray:
    """A path through the centres of a piece's border pixels, float (N, 2), x and y as shares of width and height.

    Slits lead to holes and back, so that filling the path leaves them free. Programs that cut coordinates off to whole
    pixels, or draw the path's own pixels, get the piece.

    Args:
        piece: bool (H, W), without parts that share corners alone.
    """
    loops = trace(piece)
    outer = next(loop.pixels for loop in loops if not loop.is_hole)
    path = without_straight(with_holes(outer, [loop.pixels for loop in loops if loop.is_hole])).astype(float)
    if np.ptp(path, axis=0).min() == 0:  # one pixel, or a line of them: a path needs an area
        low, high = path.min(0), path.max(0)
        path = np.where(_QUARTER > 0, high, low) + _QUARTER
    return (path[:, ::-1] + 0.5) / piece.shape[::-1]


def finish(collected: Collected, settings: Settings) -> None:
    """`data.yaml`; it needs no `path`, so the folder may move."""
    data = {**split_folders(settings), "names": dict(enumerate(settings.classes.names[1:]))}
    with collected.write("data.yaml") as file:
        file.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())


YOLO = Format(encode, finish, ignore=BACKGROUND, can_ignore=False)
