import io
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from pseudolabel.errors import SampleError
from pseudolabel.io.image_formats import formats
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.vocabulary import voc_palette

MANY = 10**9
LOSSY = 14  # largest difference that JPEG leaves on flat colours
AS_IT_IS = {"quality": 95, "subsampling": "4:4:4", "chroma": 444}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def needs_plugin(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
        assert "HEIF" in formats()


def decode(data: bytes) -> np.ndarray:
    image, _ = decode_image(data, "a file", MANY)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A grey PNG built by hand, since Pillow writes no 2- and 4-bit ones."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A grey TIFF built by hand, since Pillow writes no 2- and 4-bit ones."""
    fields = {256: width, 257: height, 258: depth, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(rows)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", len(fields)) + table + bytes(4)


@pytest.fixture(scope="module")
def quadrants() -> np.ndarray:
    """uint8 (32, 48, 3) that no flip or turn leaves as it is, flat over JPEG's blocks."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16] = 200, 40, 40
    pixels[:16, 16:] = 40, 180, 40
    pixels[16:, :32] = 40, 40, 220
    pixels[16:, 32:] = 230, 230, 60
    return pixels


@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "TGA", "PCX", "SGI", "DDS", "QOI", "DIB"]
)
def test_lossless_rgb_is_exact(kind: str, quadrants: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(quadrants), kind)), quadrants)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_formats_of_phones_keep_their_colours(kind: str, quadrants: np.ndarray) -> None:
    needs_plugin(kind)
    decoded = decode(encode(Image.fromarray(quadrants), kind, quality=95))
    assert decoded.shape == quadrants.shape
    assert np.abs(decoded - quadrants)[4:12, 20:].max() <= LOSSY


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "PPM"])
def test_grey_is_copied_to_all_channels(kind: str) -> None:
    grey = np.repeat(np.arange(0, 256, 32, dtype=np.uint8), 8)[None].repeat(16, 0)
    options = {"quality": 95} if kind == "JPEG" else {}
    decoded = decode(encode(Image.fromarray(grey), kind, **options))
    assert np.abs(decoded - grey[..., None]).max() <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str, quadrants: np.ndarray) -> None:
    cmyk = Image.fromarray(quadrants).convert("CMYK")
    options = {"quality": 95} if kind == "JPEG" else {}
    assert np.abs(decode(encode(cmyk, kind, **options)) - quadrants).max() <= LOSSY


def test_cmyk_jpeg_is_stored_inverted_with_adobes_marker() -> None:
    """Keeps the test above honest: Pillow writes what Photoshop writes, and white ink is 255 in the file."""
    data = encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data
    assert (decode(data) > 250).all()


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("JPEG2000", "<u2")])
def test_16_bit_grey_is_scaled_not_clipped(kind: str, dtype: str) -> None:
    values = np.array([[0, 128, 257, 1000, 32768, 65278, 65535]], dtype)
    decoded = decode(encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(decoded[..., 0], np.round(values / 257).astype(int))
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_16_bit_png_written_by_hand_is_scaled() -> None:
    rows = b"\0" + struct.pack(">4H", 0, 257, 32896, 65535)
    np.testing.assert_array_equal(decode(png(4, 1, 16, rows))[0, :, 1], [0, 1, 128, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
        (np.array([[-10, 0, 10]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.zeros((1, 3), np.float32), [0, 0, 0]),
    ],
)
def test_wide_tiff_values_are_scaled(values: np.ndarray, expected: list[int]) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(values), "TIFF"))[0, :, 0], expected)


def test_float_tiff_with_nan_is_unreadable() -> None:
    data = encode(Image.fromarray(np.array([[0.0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(SampleError, match="NaN") as caught:
        decode(data)
    assert caught.value.status == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000", "TGA"])
def test_rgba_is_composed_on_white(kind: str) -> None:
    pixels = np.full((8, 8, 4), (255, 0, 0, 255), np.uint8)
    pixels[:4] = 0, 0, 255, 0
    pixels[4:6, :, 3] = 128
    decoded = decode(encode(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {})))
    np.testing.assert_array_equal(decoded[0, 0], [255, 255, 255])
    np.testing.assert_allclose(decoded[4, 0], [255, 127, 127], atol=1)
    np.testing.assert_array_equal(decoded[7, 0], [255, 0, 0])


def test_grey_with_alpha_is_composed_on_white() -> None:
    pixels = np.array([[[10, 255], [10, 0]]], np.uint8)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(pixels), "PNG"))[0, :, 0], [10, 255])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_colour_becomes_white(kind: str, transparency: object) -> None:
    if kind == "GIF":
        transparency = 1
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    decoded = decode(encode(image, kind, transparency=transparency))
    np.testing.assert_array_equal(decoded[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


def test_transparent_colour_key_of_rgb_png_becomes_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    np.testing.assert_array_equal(decode(encode(image, "PNG", transparency=(1, 2, 3)))[0], [[255] * 3, [4, 5, 6]])


def test_bilevel_is_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode(encode(image, "PNG"))[0, :, 0], [255, 0])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    decoded = decode(data)
    assert decoded.shape == (7, 9, 3)
    assert (decoded == [255, 0, 0]).all()


# How a camera in that orientation stores an upright image.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(kind: str, orientation: int, quadrants: np.ndarray) -> None:
    needs_plugin(kind)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    options = {"AVIF": AS_IT_IS, "HEIF": AS_IT_IS}.get(kind, options)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants)))
    # The plugin turns what it writes only by EXIF in bytes.
    data = encode(stored, kind, exif=exif.tobytes() if kind == "HEIF" else exif, **options)
    image, original = decode_image(data, "a file", MANY)
    lossy = kind in ("JPEG", "AVIF", "HEIF")
    assert np.abs(np.asarray(image).astype(int) - quadrants).max() <= (LOSSY if lossy else 0)
    assert (original is data) == (kind == "JPEG" and orientation == 1)


def test_orientation_is_applied_once(quadrants: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, _ = decode_image(encode(Image.fromarray(quadrants), "JPEG", exif=exif), "a file", MANY)
    again, _ = decode_image(encode(image, "PNG"), "a file", MANY)
    assert again.size == image.size == (32, 48)
    assert not image.info


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_exif_is_ignored(exif: bytes, quadrants: np.ndarray) -> None:
    image, original = decode_image(encode(Image.fromarray(quadrants), "JPEG", exif=exif), "a file", MANY)
    assert image.size == (48, 32)
    assert original is not None


def test_the_first_image_of_an_mpo() -> None:
    data = encode(Image.new("RGB", (16, 16), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    image, original = decode_image(data, "a file", MANY)
    assert np.abs(np.asarray(image).astype(int) - [255, 0, 0]).max() <= LOSSY
    assert original is None


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB")])
def test_only_rgb_jpegs_keep_their_bytes(kind: str, mode: str) -> None:
    assert decode_image(encode(Image.new(mode, (8, 8)), kind), "a file", MANY)[1] is None


def test_large_images_are_refused_before_decoding() -> None:
    """No pixel of these 10 gigapixels exists, and Pillow's own guard neither warns nor raises."""
    huge = png(100_000, 100_000, 8, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SampleError, match="100000 x 100000") as caught:
            decode_image(huge, "huge.png", 100_000_000)
    assert caught.value.status == "too_large"
    assert "huge.png" in str(caught.value)
    assert "`source.max_pixels`" in str(caught.value)


def test_max_pixels_is_inclusive(quadrants: np.ndarray) -> None:
    data = encode(Image.fromarray(quadrants), "PNG")
    assert decode_image(data, "a file", 48 * 32)[0].size == (48, 32)
    with pytest.raises(SampleError, match="48 x 32"):
        decode_image(data, "a file", 48 * 32 - 1)


def test_pillows_settings_do_not_matter_and_are_kept(monkeypatch: pytest.MonkeyPatch, quadrants: np.ndarray) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(Image.fromarray(quadrants), "TIFF")
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: decode_image(data, "a file", MANY)[0], range(64)))
    assert all(image.size == (48, 32) for image in images)
    jpeg = encode(Image.fromarray(quadrants), "JPEG")
    with pytest.raises(SampleError) as caught:
        decode_image(jpeg[: len(jpeg) * 3 // 4], "a file", MANY)
    assert caught.value.status == "truncated"
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (10, True)


def noise(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    return encode(Image.fromarray(pixels), kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TGA", "PCX"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_truncation_is_detected(kind: str, share: float) -> None:
    data = noise(kind)
    with pytest.raises(SampleError, match="photo") as caught:
        decode_image(data[: int(len(data) * share)], "photo", MANY)
    assert caught.value.status == "truncated"


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "HEIF", "QOI", "DDS"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_image_is_never_read(kind: str, share: float) -> None:
    needs_plugin(kind)
    data = noise(kind)
    with pytest.raises(SampleError, match="photo") as caught:
        decode_image(data[: int(len(data) * share)], "photo", MANY)
    assert caught.value.status in ("truncated", "unreadable")


def test_a_heic_photo_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_plugin("HEIF")
    data = noise("HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.cache_clear()
    try:
        with pytest.raises(
            SampleError, match=r"photo\.jpg: a HEIC image; to read it: pip install pillow-heif"
        ) as caught:
            decode_image(data, "photo.jpg", MANY)
    finally:
        formats.cache_clear()
    assert caught.value.status == "unreadable"


@pytest.mark.parametrize("data", [b"", b"\0", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"])
def test_other_files_are_unreadable(data: bytes) -> None:
    with pytest.raises(SampleError, match=r"photo: (not an image of a known format|the file is empty)") as caught:
        decode_image(data, "photo", MANY)
    assert caught.value.status == "unreadable"


INTACT = [noise(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "TGA")]
INTACT.append(noise("TIFF", compression="tiff_lzw"))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(INTACT), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damage_raises_only_sample_errors(intact: bytes, data: st.DataObject) -> None:
    damaged = bytearray(intact)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(intact) - 1), st.integers(0, 255)), max_size=8)
    ):
        damaged[place] = value
    del damaged[data.draw(st.integers(0, len(intact))) :]
    try:
        image, _ = decode_image(bytes(damaged), "damaged", 10**6)
        outcome, pixels = image.mode, image.width * image.height
    except SampleError as error:
        outcome, pixels = error.status, 0
    assert outcome in ("RGB", "unreadable", "truncated", "too_large")
    assert pixels <= 10**6


LABELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(LABELS)
@example(np.array([[0, 1, 20, 255]], np.uint8))
def test_palette_masks_keep_their_indices(labels: np.ndarray) -> None:
    mask = Image.fromarray(labels, "P")
    mask.putpalette(voc_palette().tobytes())
    np.testing.assert_array_equal(read_mask(encode(mask, "PNG"), "a mask"), labels)


def test_converting_palette_masks_changes_their_values() -> None:
    mask = Image.fromarray(np.array([[1, 20, 255]], np.uint8), "P")
    mask.putpalette(voc_palette().tobytes())
    assert np.asarray(mask.convert("L")).tolist() == [[38, 52, 220]]


@given(LABELS)
def test_grey_masks_keep_their_values(labels: np.ndarray) -> None:
    read = read_mask(encode(Image.fromarray(labels), "PNG"), "a mask")
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == np.uint8


@pytest.mark.parametrize(
    ("depth", "rows", "values"),
    [
        (1, b"\0\x60", [0, 1, 1, 0]),
        (2, b"\0\x1b", [0, 1, 2, 3]),
        (4, b"\0\x01\x2f", [0, 1, 2, 15]),
        (16, b"\0\0\0\0\x01\0\x14\0\xff", [0, 1, 20, 255]),
    ],
)
def test_grey_masks_of_every_depth(depth: int, rows: bytes, values: list[int]) -> None:
    assert read_mask(png(4, 1, depth, rows), "a mask").tolist() == [values]


@pytest.mark.parametrize(
    ("depth", "rows", "values"),
    [(2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15]), (8, b"\0\1\2\xff", [0, 1, 2, 255])],
)
def test_grey_tiff_masks_of_every_depth(depth: int, rows: bytes, values: list[int]) -> None:
    assert read_mask(tiff(4, 1, depth, rows), "a mask").tolist() == [values]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_masks_are_refused(mode: str) -> None:
    with pytest.raises(SampleError, match=f"truth.png.*mode {mode};.*palette or grey") as caught:
        read_mask(encode(Image.new(mode, (4, 4)), "PNG"), "truth.png")
    assert caught.value.status == "unreadable"


def test_a_mask_is_never_a_jpeg() -> None:
    with pytest.raises(SampleError, match="truth"):
        read_mask(encode(Image.new("L", (8, 8)), "JPEG"), "truth")


def test_values_above_255_are_refused() -> None:
    with pytest.raises(SampleError, match="label values up to 256"):
        read_mask(encode(Image.fromarray(np.array([[0, 256]], np.uint16)), "PNG"), "truth")


def test_too_large_masks_are_not_decoded() -> None:
    with pytest.raises(SampleError) as caught:
        read_mask(png(100_000, 100_000, 8, b""), "truth", 10**6)
    assert caught.value.status == "too_large"


def test_truncated_masks_are_reported() -> None:
    labels = np.random.default_rng(0).integers(0, 20, (64, 64), np.uint8)
    data = encode(Image.fromarray(labels), "PNG")
    with pytest.raises(SampleError) as caught:
        read_mask(data[: len(data) // 2], "truth")
    assert caught.value.status == "truncated"


def test_every_image_and_mask_of_the_voc_sample(voc_sample: Path) -> None:
    paths = sorted((voc_sample / "JPEGImages").glob("*.jpg"))
    assert len(paths) == 80
    for path in paths:
        data = path.read_bytes()
        image, original = decode_image(data, path.name, MANY)
        labels = read_mask((voc_sample / "SegmentationClass" / f"{path.stem}.png").read_bytes(), path.stem)
        assert original is data
        assert labels.shape == (image.height, image.width)
        assert set(np.unique(labels)) <= {*range(21), 255}
