"""Decode images of any common format to upright 8-bit RGB, and masks to their label values."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from pseudolabel.errors import SampleError
from pseudolabel.io.image_formats import HEAD, HEIF_HINT, formats, is_heif
from pseudolabel.vocabulary import voc_palette

_MASK_FORMATS = ("PNG", "TIFF", "BMP")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_DEPTH, _PNG_COLOUR_TYPE, _PNG_GREY = 24, 25, 0


class _StrictPillow:
    """Set Pillow's process-wide options for decoding; restore them when the last decoding thread has left.

    `max_pixels` replaces Pillow's own size limit. Truncated files must be detected even if another library has set
    LOAD_TRUNCATED_IMAGES.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._saved


_STRICT_PILLOW = _StrictPillow()


def decode_image(data: bytes, origin: str, max_pixels: int) -> tuple[Image.Image, bytes | None]:
    """Decode an image file of any common format and mode to upright 8-bit RGB.

    EXIF orientation is applied, transparent pixels are blended with white, and only the first frame of an animation is
    read. Grey values above 8 bits are scaled, not clipped: 16 bits by their full range, 32-bit integers and floats as
    in `_eight_bits`.

    Args:
        data: the content of the file.
        origin: the file's name, for messages.
        max_pixels: largest width * height that is decoded.

    Returns:
        The RGB image without metadata, and `data` itself if it already is an upright RGB JPEG, else None.

    Raises:
        SampleError: `too_large` before anything is decoded, `truncated` if the file ends early, else `unreadable`.
    """
    with _STRICT_PILLOW, decoding(origin):
        image = _open(data, formats(), origin, max_pixels)
        turn = _turn(image)
        is_plain_jpeg = image.format == "JPEG" and image.mode == "RGB" and turn is None
        rgb = _upright_rgb(image, turn)
    return rgb, data if is_plain_jpeg else None


def upright_rgb(image: Image.Image, origin: str, max_pixels: int) -> Image.Image:
    """Convert a PIL image to upright 8-bit RGB without metadata, exactly as `decode_image` does for a file.

    Args:
        image: of any mode; it is not changed.
        origin: its name, for messages.
        max_pixels: largest width * height that is accepted.

    Raises:
        SampleError: as `decode_image` does.
    """
    check_size(*image.size, origin, max_pixels)
    with _STRICT_PILLOW, decoding(origin):
        return _upright_rgb(image, _turn(image))


def read_mask(data: bytes, origin: str, max_pixels: int | None = None) -> np.ndarray:
    """Decode a mask file to its label values: palette indices or grey values as stored.

    Args:
        data: the content of the file, a palette or grey PNG (TIFF and BMP work as well).
        origin: the file's name, for messages.
        max_pixels: largest width * height that is decoded; None sets no limit.

    Returns:
        uint8 (H, W).

    Raises:
        SampleError: `too_large`, `truncated` or `unreadable`. Colour masks, which have no label values, and values
            above 255 are `unreadable`.
    """
    with _STRICT_PILLOW, decoding(origin):
        image = _open(data, _MASK_FORMATS, origin, max_pixels)
        if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
            raise SampleError(
                "unreadable",
                f"{origin}: a mask needs one label value per pixel, this one has mode {image.mode}; "
                "save it as a palette or grey PNG whose values are the class indices",
            )
        labels = np.asarray(image)
    depth = _grey_depth(image, data)
    if depth in (2, 4):
        labels = labels // (255 // (2**depth - 1))  # Pillow stretches 2- and 4-bit grey to 0..255
    if labels.min() < 0 or labels.max() > 255:
        raise SampleError("unreadable", f"{origin}: label values up to {labels.max()}; a mask holds values in 0..255")
    return labels.astype(np.uint8)


def read_grey(data: bytes, origin: str) -> np.ndarray:
    """Decode an 8-bit grey PNG without a palette: uint8 (H, W).

    Raises:
        SampleError: `unreadable` or `truncated`.
    """
    with _STRICT_PILLOW, decoding(origin):
        image = _open(data, ("PNG",), origin, None)
        if image.mode != "L" or _grey_depth(image, data) != 8:
            raise SampleError("unreadable", f"{origin}: an 8-bit grey PNG is needed; this one has mode {image.mode}")
        return np.asarray(image)


def _grey_depth(image: Image.Image, data: bytes) -> int:
    """Bits per grey value of a PNG or TIFF file; 0 for other images."""
    if image.format == "PNG" and data[_PNG_COLOUR_TYPE] == _PNG_GREY:
        return data[_PNG_DEPTH]
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "L":
        return int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])
    return 0


def mask_image(labels: np.ndarray) -> Image.Image:
    """A palette image with the labels as values and the colours of PASCAL VOC; `read_mask` reads it back.

    Args:
        labels: uint8 (H, W).
    """
    image = Image.fromarray(labels)
    image.putpalette(voc_palette().tobytes())
    return image


@contextmanager
def decoding(origin: str) -> Iterator[None]:
    """Turn any exception of a decoder into a `SampleError`; damaged files raise nearly every type."""
    try:
        yield
    except (SampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise SampleError("unreadable", f"{origin}: not an image of a known format") from error
    except Exception as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise SampleError("truncated" if cut else "unreadable", f"{origin}: {error or type(error).__name__}") from error


def _open(data: bytes, kinds: tuple[str, ...], origin: str, max_pixels: int | None) -> ImageFile.ImageFile:
    if not data:
        raise SampleError("unreadable", f"{origin}: the file is empty")
    if is_heif(data[:HEAD]) and "HEIF" not in kinds:
        raise SampleError("unreadable", f"{origin}: a HEIC image; to read it: {HEIF_HINT}")
    image = Image.open(io.BytesIO(data), formats=kinds)
    check_size(*image.size, origin, max_pixels)
    image.load()  # verify() does not see truncation
    return image


def check_size(width: int, height: int, origin: str, max_pixels: int | None) -> None:
    """Refuse an image with more than `max_pixels` pixels; None sets no limit.

    Raises:
        SampleError: `too_large`.
    """
    if max_pixels is not None and width * height > max_pixels:
        raise SampleError(
            "too_large", f"{origin}: {width} x {height} pixels; raise `source.max_pixels` above {max_pixels} to take it"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that the EXIF orientation asks for, None if there is none. Damaged EXIF is ignored."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None


def _upright_rgb(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    rgb = _to_rgb(image if turn is None else image.transpose(turn))
    rgb.info.clear()  # else a saved copy would keep the orientation and be turned twice
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale wide grey values to uint8 (H, W).

    The full scale of integers is 65535. The full scale of floats is the smallest of 1, 255 and 65535 that is not below
    their maximum. Larger or negative values have no standard scale; their minimum becomes 0 and their maximum 255.
    """
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinite values")
    low, high = float(values.min()), float(values.max())
    scales = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    fitting = [scale for scale in scales if low >= 0 and high <= scale]
    low, high = (0.0, fitting[0]) if fitting else (low, high)
    return np.round((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
