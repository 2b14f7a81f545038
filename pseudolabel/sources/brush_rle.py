"""Label Studio's run lengths of brush strokes, those of the package @thi.ng/rle-pack."""

from collections.abc import Sequence

import numpy as np

_CHANNELS = 4  # Label Studio paints RGBA


def decode_brush_rle(data: Sequence[int], height: int, width: int) -> np.ndarray:
    """Decode a brush stroke.

    32 bits give the number of values, 5 and 4 times 4 bits the sizes in bits of values and of lengths, less one. Then
    follow runs: one bit tells whether a value repeats, two bits which size its length has, the length less one, and
    the value, or as many values. A pixel is painted if the last of its four values is not 0.

    Args:
        data: bytes as numbers.
        height: of the image.
        width: of the image.

    Returns:
        bool (height, width).

    Raises:
        ValueError: if it is damaged or of another size.
    """
    raw = bytes(data)
    bits = f"{int.from_bytes(raw, 'big'):0{8 * len(raw)}b}"
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("the run lengths end too early")
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if total != height * width * _CHANNELS:
        raise ValueError(f"run lengths of {total // _CHANNELS} pixels for an image of {height} x {width}")
    values = np.zeros(total, np.bool_)
    done = 0
    while done < total:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        if done + length > total:
            raise ValueError("the run lengths go beyond the image")
        if is_run:
            values[done : done + length] = take(word) != 0
        else:
            values[done : done + length] = [take(word) != 0 for _ in range(length)]
        done += length
    return values.reshape(height, width, _CHANNELS)[..., -1]
