import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pseudolabel.errors import SampleError
from pseudolabel.io.images import decode_image
from pseudolabel.io.tar import Members
from pseudolabel.records import EncodedImage, LabelMap, Sample, ScoreMaps
from pseudolabel.shards.sample import CAM_MEMBERS, MASK_MEMBERS, decode_cams, encode_cams, encode_image, encode_mask
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

LARGE = 10**9


def photo(kind: str, orientation: int | None = None) -> bytes:
    """12 wide, 8 high, the left third red and the rest blue."""
    image = Image.new("RGB", (12, 8), "blue")
    image.paste("red", (0, 0, 4, 8))
    buffer = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def sample_of(data: bytes) -> Sample:
    image, original = decode_image(data, "photo", LARGE)
    return Sample("a", EncodedImage(image.size[::-1], lambda: image, original), (8,))


def read_back(members: Members) -> Image.Image:
    return Image.open(io.BytesIO(members["jpg"]))


@pytest.mark.parametrize("orientation", [None, 1])
def test_the_sources_bytes_are_kept(orientation: int | None) -> None:
    data = photo("JPEG", orientation)
    assert encode_image(sample_of(data)) == data


def test_exif_orientation_of_a_jpeg_is_applied() -> None:
    data = encode_image(sample_of(photo("JPEG", orientation=6)))
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    assert image.size == (8, 12)
    assert image.getexif().get(0x0112, 1) == 1
    top, bottom = image.getpixel((4, 1)), image.getpixel((4, 9))
    assert top[0] > 200 > 60 > top[2]
    assert bottom[2] > 200 > 60 > bottom[0]


def test_a_png_becomes_a_jpeg() -> None:
    sample = sample_of(photo("PNG"))
    image = Image.open(io.BytesIO(encode_image(sample)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (12, 8))
    assert np.abs(np.asarray(image, int) - np.asarray(sample.image, int)).max() <= 12
    assert encode_image(sample) == encode_image(sample)


def test_maps_are_stored_exactly(voc: Vocabulary) -> None:
    maps = np.random.default_rng(1).standard_normal((2, 5, 7)).astype(np.float16)
    scores = ScoreMaps("dir/ä", (8, 15), maps, (8, 12))
    members = encode_cams(replace(sample_of(photo("PNG")), key="dir/ä"), scores, voc)
    assert set(members) == CAM_MEMBERS
    back = decode_cams("dir/ä", members)
    assert back.scores.maps.dtype == np.float16
    np.testing.assert_array_equal(back.scores.maps, maps)
    assert (back.scores.classes, back.scores.size, back.jpeg) == ((8, 15), (8, 12), members["jpg"])
    assert back.fields == {"key": "dir/ä", "classes": [8, 15], "names": ["cat", "person"], "height": 8, "width": 12}


def test_no_classes_give_no_maps(voc: Vocabulary) -> None:
    sample = replace(sample_of(photo("PNG")), classes=())
    members = encode_cams(sample, ScoreMaps("a", (), np.zeros((0, 4, 4), np.float16), (8, 12)), voc)
    assert decode_cams("a", members).scores.maps.shape == (0, 4, 4)


def with_arrays(members: Members, **arrays: np.ndarray) -> Members:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return {**members, "cam.npz": buffer.getvalue()}


def test_nothing_is_unpickled(cam_members: Members) -> None:
    planted = with_arrays(
        cam_members, maps=np.array([{"an": "object"}], dtype=object), classes=np.array([8], dtype=np.int64)
    )
    with pytest.raises(SampleError, match="allow_pickle"):
        decode_cams("a", planted)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cam.npz": b"PK"}, "sample 'a'"),
        ({"cam.npz": b""}, "sample 'a'"),
        ({"json": b"{"}, "JSONDecodeError"),
        ({"json": b"{}"}, "height"),
        ({"json": b"[]"}, "sample 'a'"),
        ({"png": b""}, "has members"),
    ],
)
def test_a_damaged_member_is_named(cam_members: Members, change: dict[str, bytes], reason: str) -> None:
    with pytest.raises(SampleError, match=reason):
        decode_cams("a", {**cam_members, **change})


def test_a_missing_member_is_named(cam_members: Members) -> None:
    with pytest.raises(SampleError, match=r"has members \['cam.npz', 'json'\] instead of"):
        decode_cams("a", {name: data for name, data in cam_members.items() if name != "jpg"})


def test_maps_and_classes_must_agree(cam_members: Members) -> None:
    with pytest.raises(SampleError, match=r"maps of shape \(2, 4, 6\) for 1 classes"):
        decode_cams("a", with_arrays(cam_members, maps=np.zeros((2, 4, 6), np.float16), classes=np.array([8])))


def test_truncated_maps_are_detected(cam_members: Members) -> None:
    for length in range(0, len(cam_members["cam.npz"]), 7):
        with pytest.raises(SampleError):
            decode_cams("a", {**cam_members, "cam.npz": cam_members["cam.npz"][:length]})


def test_mask_values_are_indices_not_grey() -> None:
    """The palette is for people; `convert("L")` would turn 1, 20 and 255 into 38, 52 and 220."""
    labels = np.array([[0, 1, 8], [20, 15, 255]], np.uint8)
    fields = {"key": "a", "classes": [1], "height": 2, "width": 3}
    members = encode_mask(b"jpeg", LabelMap("a", labels), fields)
    assert set(members) == MASK_MEMBERS
    assert members["jpg"] == b"jpeg"
    image = Image.open(io.BytesIO(members["png"]))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)
    assert image.convert("RGB").getpixel((2, 1)) == (224, 224, 192)
    assert json.loads(members["json"]) == {**fields, "ignored": round(1 / 6, 6)}


def test_final_maps_are_told_from_others() -> None:
    sample = sample_of(photo("JPEG"))
    maps = ScoreMaps("a", (8,), np.full((1, 2, 3), 0.5, np.float16), (8, 12))
    plain, final = (encode_cams(sample, own, load_vocabulary("voc")) for own in (maps, replace(maps, final=True)))
    assert not decode_cams("a", plain).scores.final
    assert decode_cams("a", final).scores.final
    assert {name: plain[name] == final[name] for name in plain} == {"jpg": True, "cam.npz": False, "json": True}
