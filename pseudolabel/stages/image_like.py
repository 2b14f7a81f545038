"""Images in every form that Python users have them in, as upright RGB images and samples."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import xxhash
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError
from pseudolabel.io.files import Location, read_bytes
from pseudolabel.io.images import decode_image, upright_rgb
from pseudolabel.io.names import printable
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import Outcome
from pseudolabel.records import EncodedImage, Sample

ImageLike = Image.Image | np.ndarray | str | Path | bytes
"""A PIL image of any mode, uint8 (H, W), (H, W, 3) or (H, W, 4), or an image file's path, fsspec URL or bytes."""

View = Callable[[Image.Image], Any]
MAX_PIXELS = SourceConfig().max_pixels
_ONE = (Image.Image, np.ndarray, str, bytes, os.PathLike, Mapping)


def is_one_image(images: Any) -> TypeGuard[ImageLike]:
    """Whether this is one image, and not several."""
    return isinstance(images, _ONE) or not isinstance(images, Iterable)


def decode(image: ImageLike, origin: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Any image as 8-bit RGB, upright by its EXIF orientation, with transparency laid on white.

    Args:
        image: in any of the forms.
        origin: a name for messages, of an image that is not a file.
        max_pixels: largest width * height that is decoded.

    Raises:
        SampleError: if it cannot be read, or is too large.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image, origin, max_pixels)
    if isinstance(image, bytes):
        return decode_image(image, origin, max_pixels)[0]
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise SampleError("unreadable", f"an array {image.dtype} {image.shape}; give uint8 (H, W) or (H, W, 3)")
        return upright_rgb(Image.fromarray(image), origin, max_pixels)
    if not isinstance(image, (str, os.PathLike)):
        raise SampleError("unreadable", f"a {type(image).__name__}; give a PIL image, an array, a path or bytes")
    return decode_image(read_bytes(Location(str(image))), printable(str(image)), max_pixels)[0]


@dataclass(frozen=True)
class ReadImage:
    """An image that has been decoded once, ready to become a sample.

    Attributes:
        content: the image, or the bytes of its file, which take less memory.
        digest: of its pixels, for the key.
        view: what the predictor needs of it.
    """

    content: Image.Image | EncodedImage
    digest: str
    view: Any


def read_image(image: ImageLike, origin: str, max_pixels: int, view: View | None) -> ReadImage:
    """Read and decode an image in any of the forms.

    Raises:
        SampleError: if it cannot be read, or is too large.
    """
    if isinstance(image, (str, os.PathLike)):
        image, origin = read_bytes(Location(str(image))), printable(str(image))
    decoded = decode(image, origin, max_pixels)
    content = EncodedImage(decoded.size[::-1], partial(decode, image, origin, max_pixels))
    digest = xxhash.xxh3_64_hexdigest(decoded.tobytes())
    return ReadImage(
        content if isinstance(image, bytes) else decoded, digest, view(decoded) if view is not None else None
    )


def unused_key(digest: str, used: set[str]) -> str:
    """A key that no other image of the call has, added to `used`.

    Noise is drawn by key: with a key by its content, an image has the same result in every call.
    """
    number = 1
    while (key := digest if number == 1 else f"{digest}-{number}") in used:
        number += 1
    used.add(key)
    return key


def predict(
    predictor: CheckedPredictor, items: Iterable[Sample | SampleError]
) -> Iterator[tuple[Sample, Outcome] | SampleError]:
    """Every sample with its outcome, and errors where they were among the items, in the items' order."""
    taken: deque[Sample | SampleError] = deque()

    def samples() -> Iterator[Sample]:
        for item in items:
            taken.append(item)
            if isinstance(item, Sample):
                yield item

    for sample, outcome in predictor(samples()):
        while isinstance(error := taken.popleft(), SampleError):
            yield error
        yield sample, outcome
    for item in taken:
        assert isinstance(item, SampleError)
        yield item
