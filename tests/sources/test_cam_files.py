"""Files of score maps in the layouts of IRNet, SEAM, MCTformer, CLIP-ES and ourselves, and files that are refused."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.errors import SampleError
from pseudolabel.records import ScoreMaps
from pseudolabel.sources.cam_files import CamFormat, decode_cam_files
from pseudolabel.vocabulary import load_vocabulary

VOC = load_vocabulary("voc")
SIZE = (20, 30)
CLASSES = (8, 15)  # cat and person: 7 and 14 without background
MAPS = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
BACKGROUND = np.full((1, *SIZE), 0.3, np.float32)


def npy(content: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, content)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def decode(data: bytes, kind: CamFormat = "npy", classes: tuple[int, ...] = CLASSES) -> ScoreMaps:
    return decode_cam_files({"cams/a": data}, kind, "a", classes, SIZE, VOC)


def everything(background: bool) -> np.ndarray:
    maps = np.zeros((20 + background, *SIZE), np.float32)
    maps[[7 + background, 14 + background]] = MAPS
    return maps


LAYOUTS: dict[str, Any] = {
    "IRNet": {
        "keys": torch.tensor([7, 14]),
        "cam": torch.from_numpy(MAPS[:, ::4, ::4].copy()),
        "high_res": MAPS,
    },
    "IRNet in NumPy": {"keys": np.array([7, 14]), "cam": MAPS[:, ::4, ::4], "high_res": MAPS},
    "CLIP-ES": {"keys": np.array([14, 7]), "attn_highres": MAPS[::-1].astype(np.float16)},
    "SEAM": {7: MAPS[0], 14: MAPS[1]},
    "MCTformer": {np.int64(7): MAPS[0], np.int64(14): MAPS[1]},
    "SEAM after its CRF": {0: BACKGROUND[0], 8: MAPS[0], 15: MAPS[1]},
    "keys with background": {"keys": np.array([0, 8, 15]), "high_res": np.concatenate([BACKGROUND, MAPS])},
    "keys with background, maps without": {"keys": np.array([0, 8, 15]), "high_res": MAPS},
    "keys from 1": {"keys": [8, 15], "high_res": MAPS},
    "array of the image's classes": MAPS,
    "array of all classes": everything(background=False),
    "array of background and all classes": everything(background=True),
}


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(content: Any) -> None:
    found = decode(npy(content))
    assert found.final
    assert (found.key, found.classes, found.size) == ("a", CLASSES, SIZE)
    np.testing.assert_array_equal(found.maps, MAPS.astype(np.float16))


def test_maps_of_lower_resolution() -> None:
    found = decode(npy({"keys": np.array([7, 14]), "cam": MAPS[:, ::4, ::4]}))
    np.testing.assert_array_equal(found.maps, MAPS[:, ::4, ::4].astype(np.float16))


def test_the_first_class_is_told_from_background() -> None:
    """Key 0 is class 1 or background; the image's labels tell."""
    content = npy({0: MAPS[0], 7: MAPS[1]})
    np.testing.assert_array_equal(decode(content, classes=(1, 8)).maps, MAPS.astype(np.float16))
    np.testing.assert_array_equal(decode(content, classes=(7,)).maps, MAPS[1:].astype(np.float16))
    with pytest.raises(SampleError, match="0, 6"):
        decode(content, classes=(1, 7))


def test_rounding_of_seam_is_taken_as_0() -> None:
    """SEAM's (cam - min - 1e-5) / (max - min + 1e-5)."""
    cam = MAPS[0] - MAPS[0].min()
    found = decode(npy({7: (cam - 1e-5) / (cam.max() + 1e-5)}), classes=(8,))
    assert found.maps.min() == 0


def test_our_own_files() -> None:
    arrays = {"maps": MAPS.astype(np.float16), "classes": np.array(CLASSES)}
    scaled_later = decode(npz(**arrays), "npz")
    np.testing.assert_array_equal(scaled_later.maps, arrays["maps"])
    assert not scaled_later.final
    assert decode(npz(**arrays, final=np.array(True)), "npz").final


def png(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_pngs() -> None:
    values = np.random.default_rng(1).integers(0, 256, (2, *SIZE), np.uint8)
    files = {"cams/a/person.png": png(values[1]), "cams/a/Cat.png": png(values[0])}
    found = decode_cam_files(files, "png", "a", CLASSES, SIZE, VOC)
    np.testing.assert_array_equal(found.maps, (values / 255).astype(np.float16))


def test_no_classes() -> None:
    assert decode(npy({}), classes=()).maps.shape == (0, 1, 1)


def with_value(value: float) -> np.ndarray:
    maps = MAPS.copy()
    maps[1, 3, 4] = value
    return maps


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a class is missing": ({7: MAPS[0]}, "other_classes", r"'cat', 'person'"),
    "a class too many": ({7: MAPS[0], 14: MAPS[1], 3: MAPS[0]}, "other_classes", r"\[3, 7, 14\]"),
    "NaN": (with_value(np.nan), "out_of_range", "NaN"),
    "infinity": (with_value(np.inf), "out_of_range", "NaN or infinity"),
    "above 1": (with_value(1.5), "out_of_range", "to 1.5"),
    "below 0": (with_value(-0.1), "out_of_range", "from -0.1"),
    "8-bit values": ((MAPS * 255).astype(np.uint8), "out_of_range", "to 25"),
    "larger": (np.ones((2, 40, 60), np.float32), "size_mismatch", r"\(40, 60\)"),
    "turned": (MAPS.transpose(0, 2, 1), "size_mismatch", r"\(30, 20\).*\(20, 30\)"),
    "too short": (MAPS[:, 1:], "size_mismatch", r"\(19, 30\)"),
    "two sizes": ({7: MAPS[0], 14: MAPS[1, ::2]}, "size_mismatch", "several sizes"),
    "key twice": ({"keys": np.array([7, 7]), "cam": MAPS}, "unreadable", r"\[7, 7\]"),
    "fewer maps": ({"keys": np.array([7, 14]), "cam": MAPS[:1]}, "unreadable", r"\(1, 20, 30\)"),
    "other names": ({"keys": np.array([7, 14]), "cams": MAPS}, "unreadable", "attn_highres, high_res, cam"),
    "flat": ({7: MAPS[0], 14: MAPS[1].ravel()}, "unreadable", r"\(600,\)"),
    "names": ({"cat": MAPS[0], "person": MAPS[1]}, "unreadable", "class number"),
    "three classes": (np.zeros((3, *SIZE)), "other_classes", r"\(3, 20, 30\)"),
}


@pytest.mark.parametrize(("content", "status", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(content: Any, status: str, message: str) -> None:
    with pytest.raises(SampleError, match=message) as caught:
        decode(npy(content))
    assert caught.value.status == status
    assert "'cams/a'" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"a/cat.png": png(np.zeros(SIZE, np.uint8))}, "no map of 'person'"),
        (lambda: {f"a/{name}.png": png(np.zeros(SIZE, np.uint8)) for name in ("cat", "person", "dog")}, "'dog', which"),
        (lambda: {"a/unicorn.png": png(np.zeros(SIZE, np.uint8))}, "'unicorn' is no class"),
        (lambda: {"a/cat.png": png(np.zeros(SIZE, np.uint16))}, "8-bit grey"),
        (lambda: {"a/cat.png": png(np.zeros((*SIZE, 3), np.uint8))}, "mode RGB"),
        (lambda: {"a/cat.png": png(np.zeros(SIZE, np.uint8))[:-40]}, "'a/cat.png'"),
    ],
)
def test_refused_pngs(make: Callable[[], dict[str, bytes]], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        decode_cam_files(make(), "png", "a", CLASSES, SIZE, VOC)


def test_refused_npz() -> None:
    with pytest.raises(SampleError, match="no array classes"):
        decode(npz(maps=MAPS), "npz")
    with pytest.raises(SampleError, match="allow_pickle"):
        decode(npz(maps=np.array([{}], object), classes=np.array(CLASSES)), "npz")
