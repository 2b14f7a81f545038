"""Class-free masks in each format, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.images import mask_image
from pseudolabel.io.tar import write_tar
from pseudolabel.sources.region_files import open_regions

SIZE = (6, 8)


def masks():
    found = np.zeros((3, *SIZE), bool)
    found[0, 1:4, 2:5] = True
    found[1, 3:, :3] = True  # overlaps the first
    return found


def rle(mask):
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


def read(folder, key="a/b"):
    return np.array(open_regions(str(folder)).find(key).read(SIZE))


@pytest.mark.parametrize("form", ["list", "coco", "npz", "only array", "uint8"])
def test_masks_may_overlap(tmp_path, form):
    (tmp_path / "a").mkdir()
    if form in ("list", "coco"):
        rows = [{"segmentation": rle(mask), "area": int(mask.sum())} for mask in masks()]
        (tmp_path / "a/b.json").write_text(json.dumps(rows if form == "list" else {"image": {}, "annotations": rows}))
    else:
        arrays = {"only" if form == "only array" else "masks": masks().astype(np.uint8 if form == "uint8" else bool)}
        np.savez_compressed(tmp_path / "a/b.npz", **arrays)
    assert np.array_equal(read(tmp_path), masks())
    assert open_regions(str(tmp_path)).origin == "mask_trained"


def test_values_of_a_label_map_are_masks_without_0(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[:2], labels[4:] = 9, 200
    (tmp_path / "a").mkdir()
    Image.fromarray(labels).save(tmp_path / "a/b.png")
    assert np.array_equal(read(tmp_path), [labels == 9, labels == 200])


def test_shards_of_segments(tmp_path):
    labels = np.repeat(np.arange(1, 7, dtype=np.uint8)[:, None], 8, 1)
    buffer = io.BytesIO()
    mask_image(labels).save(buffer, "PNG")
    with (tmp_path / "segments-000000.tar").open("wb") as file:
        write_tar(file, [("a/b", {"jpg": b"1", "png": buffer.getvalue(), "json": b"{}"})])
    (tmp_path / "run.json").write_text("{}")
    assert np.array_equal(read(tmp_path), [labels == value for value in range(1, 7)])
    assert open_regions(str(tmp_path)).origin == "segments"


def test_an_image_without_a_file_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", masks=masks())
    with pytest.raises(SampleError, match=r"no masks of 'b' in .*`refine.regions`") as error:
        open_regions(str(tmp_path)).find("b")
    assert error.value.status == "no_regions"


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("k.json", b"{}", "unreadable"),
        ("k.json", b"[1]", "unreadable"),
        ("k.json", b'[{"segmentation": {"size": [6, 9], "counts": [54]}}]', "unreadable"),
        ("k.npz", b"PK", "unreadable"),
        ("k.png", b"", "unreadable"),
    ],
)
def test_damaged_files_are_failures(tmp_path, name, content, status):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=name) as error:
        open_regions(str(tmp_path)).find("k").read(SIZE)
    assert error.value.status == status


@pytest.mark.parametrize("suffix", [".npz", ".png"])
def test_masks_of_another_size_are_failures(tmp_path, suffix):
    if suffix == ".npz":
        np.savez(tmp_path / "k.npz", masks=masks()[:, 1:])
    else:
        Image.fromarray(np.ones((5, 8), np.uint8)).save(tmp_path / "k.png")
    with pytest.raises(SampleError, match=r"\(5, 8\) where the image is \(6, 8\)") as error:
        open_regions(str(tmp_path)).find("k").read(SIZE)
    assert error.value.status == "size_mismatch"


def test_floats_are_no_masks(tmp_path):
    np.savez(tmp_path / "k.npz", masks=np.full((1, *SIZE), 0.5))
    with pytest.raises(SampleError, match="float64 of shape"):
        open_regions(str(tmp_path)).find("k").read(SIZE)


def test_two_files_of_an_image_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no masks in it"):
        open_regions(str(tmp_path))
    with pytest.raises(SourceError, match="no such folder"):
        open_regions(str(tmp_path / "none"))
    np.savez(tmp_path / "k.npz", masks=masks())
    (tmp_path / "k.json").write_text("[]")
    with pytest.raises(SourceError, match="'k' has several files"):
        open_regions(str(tmp_path))
