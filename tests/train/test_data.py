"""Lists of every layout are read, and data that cannot be trained on or scored are named before the Runner is built."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from pseudolabel.errors import UserError
from pseudolabel_train.data import check_data, open_data
from pseudolabel_train.errors import ConfigError, ImageError
from pseudolabel_train.image_list_dataset import ImageListDataset
from tests.shards.samples import tiny_sample, write_shard

LOADER = "val_dataloader"
STEPS = [{"type": "LoadImageFromFile"}, {"type": "LoadMask"}]
PARTS = "name: parts\nbackground: false\nclasses: [head, arm, leg]\n"


def draw(root: Path, ids, suffix: str = ".jpg", labels=(0, 1, 2, 255)) -> None:
    """Images and masks in VOC's layout, each of its own grey, which tells it apart."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(ids):
        image = root / "JPEGImages" / f"{name}{suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (20 * number,) * 3).save(image, "PNG" if suffix == ".png" else "JPEG")
        mask = root / "SegmentationClass" / f"{name}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.resize(np.array(labels, np.uint8), (6, 8))).save(mask)


def settings(root: Path, lines: str | bytes, kind: str = "ImageListDataset", **changes) -> Config:
    (root / "list.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    data = {
        "type": kind,
        "data_root": str(root),
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "ann_file": "list.txt",
        "pipeline": STEPS,
    }
    own = {"vocabulary": "shapes"} if kind == "ImageListDataset" else {}
    return Config({LOADER: {"dataset": {**data, **own, **changes}, "batch_size": 1}})


def open_and_check(cfg: Config):
    dataset = open_data(cfg, LOADER)
    check_data(cfg, LOADER, dataset)
    return dataset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ids", "suffix", "lines"),
    [
        (["a", "b"], ".jpg", "a\nb\n"),
        (["a", "b"], ".jpg", "a.jpg\nb.jpg"),
        (
            ["a", "b"],
            ".jpg",
            "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/b.jpg /SegmentationClassAug/b.png\n",
        ),
        (["a", "b"], ".jpg", b"\xef\xbb\xbfa  \r\nb  \r\n\r\n"),
        (["a", "b"], ".JPG", "a\nb\n"),
        (["a", "b"], ".png", "a\nb\n"),
        (["leaf (1)", "tree (1)"], ".jpeg", "leaf (1)\ntree (1)\n"),
        (["x/img", "y/img"], ".jpg", "x/img\ny/img\n"),
        (["v1.0", "v1.5.last"], ".jpg", "v1.0\nv1.5.last\n"),
    ],
)
def test_lists_in_common_formats(tmp_path, ids, suffix, lines):
    draw(tmp_path, ids, suffix)
    dataset = open_and_check(settings(tmp_path, lines))
    infos = [dataset.get_data_info(number) for number in range(len(dataset))]
    assert [info["img_path"] for info in infos] == [f"{tmp_path}/JPEGImages/{name}{suffix}" for name in ids]
    assert [info["seg_map_path"] for info in infos] == [f"{tmp_path}/SegmentationClass/{name}.png" for name in ids]
    loaded = ImageListDataset(
        vocabulary="shapes",
        data_root=str(tmp_path),
        data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        ann_file="list.txt",
        pipeline=STEPS,
    )[1]
    assert abs(int(loaded["img"].mean()) - 20) <= 1
    np.testing.assert_array_equal(loaded["gt_seg_map"], np.resize([0, 1, 2, 255], (6, 8)))


def test_masks_of_the_list_are_the_default(tmp_path):
    draw(tmp_path, ["a", "b"])
    (tmp_path / "Aug").mkdir()
    (tmp_path / "SegmentationClass/a.png").rename(tmp_path / "Aug/a.png")
    dataset = open_and_check(settings(tmp_path, "JPEGImages/a.jpg Aug/a.png\nJPEGImages/b.jpg Aug/b.png\n"))
    masks = [Path(dataset.get_data_info(number)["seg_map_path"]) for number in (0, 1)]
    assert masks == [tmp_path / "Aug/a.png", tmp_path / "SegmentationClass/b.png"]


def test_without_background_zero_is_ignored_and_classes_shift_down(tmp_path):
    (tmp_path / "parts.yaml").write_text(PARTS)
    draw(tmp_path, ["a"], labels=(0, 1, 3, 255))
    options = settings(tmp_path, "a", vocabulary=str(tmp_path / "parts.yaml"))
    dataset = open_and_check(options)
    assert dataset.metainfo["classes"] == ("head", "arm", "leg")
    kept = {key: value for key, value in options[LOADER].dataset.items() if key != "type"}
    loaded = ImageListDataset(**kept)[0]
    np.testing.assert_array_equal(loaded["gt_seg_map"], np.resize([255, 0, 2, 255], (6, 8)))
    assert loaded["reduce_zero_label"] is True


def refuse(cfg: Config, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_and_check(cfg)
    assert isinstance(caught.value, ConfigError)
    assert str(caught.value).startswith(LOADER) or "no " in str(caught.value)


@pytest.mark.slow
def test_masks_of_0_and_255_have_no_class(tmp_path):
    draw(tmp_path, ["a", "b"], labels=(0, 255))
    refuse(settings(tmp_path, "a\nb\n"), r"none of the 2 masks holds a class, their labels are 0, 255; .* 1, not 255")
    draw(tmp_path, ["b"], labels=(0, 3, 255))
    open_and_check(settings(tmp_path, "a\nb\n"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ImageListDataset", "BaseSegDataset"])
def test_files_that_are_not_masks_are_named(tmp_path, kind):
    stock = {} if kind == "ImageListDataset" else {"metainfo": {"classes": ["background", "circle", "square"]}}
    draw(tmp_path, ["a", "b"])
    cfg = settings(tmp_path, "a\nb\n", kind, **stock)
    open_and_check(cfg)
    mask = tmp_path / "SegmentationClass/b.png"
    Image.new("RGB", (8, 6)).save(mask)
    refuse(cfg, rf"the mask '{mask}': a mask needs one label value per pixel, this one has mode RGB")
    Image.new("L", (7, 6)).save(mask)
    refuse(cfg, rf"the mask '{mask}' has \(6, 7\) pixels \(H, W\) where the image has \(6, 8\)")
    Image.new("L", (8, 6), 9).save(mask)
    refuse(cfg, rf"the mask '{mask}' has label 9 where the vocabulary ends at")
    mask.unlink()
    refuse(cfg, rf"1 of 2 masks are missing, the first is '{mask}'")


@pytest.mark.slow
def test_images_that_are_missing_or_damaged_are_named(tmp_path):
    draw(tmp_path, ["a", "b"])
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"\xff\xd8")
    refuse(settings(tmp_path, "a\nb\n"), r"JPEGImages/b\.jpg'")
    (tmp_path / "JPEGImages/b.jpg").unlink()
    refuse(
        settings(tmp_path, "a\nb\n"), r"1 of 2 images are missing, the first is '.*JPEGImages/b\.jpg'; correct the list"
    )
    stock = settings(tmp_path, "a.jpg\n", "BaseSegDataset", metainfo={"classes": ["background", "circle"]})
    refuse(stock, r"the first is '.*a\.jpg\.jpg'; .*type='ImageListDataset'")


def test_missing_paths_are_named(tmp_path):
    draw(tmp_path, ["a"])
    refuse(
        settings(tmp_path, "a", ann_file="none.txt"),
        rf"no image list '{tmp_path}/none\.txt': set the data set's folder",
    )
    refuse(settings(tmp_path, "a", data_prefix={"img_path": "none"}), rf"no folder of images '{tmp_path}/none'")
    refuse(settings(tmp_path, "a", data_prefix={"img_path": "JPEGImages"}), "has no seg_map_path")
    refuse(
        settings(tmp_path, "a", what=1),
        r"val_dataloader\.dataset \(ImageListDataset\) cannot be opened: TypeError.*what",
    )


def test_wrapped_data_sets_are_checked(tmp_path):
    draw(tmp_path, ["a"], labels=(0, 255))
    inner = settings(tmp_path, "a")[LOADER].dataset
    cfg = Config({LOADER: {"dataset": {"type": "RepeatDataset", "times": 2, "dataset": inner}}})
    refuse(cfg, "none of the 1 masks holds a class")


def test_an_image_that_is_damaged_later_is_named(tmp_path):
    draw(tmp_path, ["a", "b"])
    options = settings(tmp_path, "a\nb\n")[LOADER].dataset
    dataset = ImageListDataset(**{key: value for key, value in options.items() if key != "type"})
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(ImageError, match=r"JPEGImages/b\.jpg' cannot be read"):
        dataset[1]
    (tmp_path / "SegmentationClass/a.png").unlink()
    with pytest.raises(ImageError, match=r"no file '.*SegmentationClass/a\.png'"):
        dataset[0]


def test_shards_are_checked(tmp_path):
    write_shard(tmp_path / "s.tar", {"a": tiny_sample(0)})
    data = {"type": "ShardDataset", "shards": str(tmp_path / "s.tar"), "vocabulary": "shapes"}
    with pytest.raises(UserError, match=r"s\.tar': sample 'a': the image is damaged"):
        open_and_check(Config({LOADER: {"dataset": data}}))
