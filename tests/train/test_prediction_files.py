"""Predictions as files: named by path, in their folder, and over nothing of others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import pseudolabel_train.register  # noqa: F401  (what configs name)
from pseudolabel.errors import NotOursError, OutputError
from pseudolabel.io.images import mask_image
from pseudolabel_train.data import open_data
from pseudolabel_train.errors import PredictionNameError
from pseudolabel_train.metric import CrfIoUMetric
from pseudolabel_train.prediction_files import PredictionFiles, open_prediction_files, prediction_name

MASK = mask_image(np.ones((4, 5), np.uint8))


@pytest.mark.parametrize(
    ("path", "folders", "name"),
    [
        ("/data/JPEGImages/a/img.jpg", ["/data/JPEGImages"], "a/img"),
        ("/data/JPEGImages/a/img.jpg", ["/data", "/data/JPEGImages/"], "a/img"),
        ("JPEGImages/frame.0.5.jpg", ["JPEGImages"], "frame.0.5"),
        ("/elsewhere/img.jpg", ["/data"], "img"),
        ("/database/img.jpg", ["/data"], "img"),
        ("/data/../../etc/img.jpg", ["/data"], "etc/img"),
        ("/data/C:/img.jpg", ["/data"], "C:/img"),
        ("/runs/masks/masks-000001.tar/street/v1.5", [], "street/v1.5"),
        ("/runs/masks/masks-000001.tar/../../up", [], "up"),
        ("/runs/masks/masks-000001.tar//root/up", [], "root/up"),
    ],
)
def test_names(path, folders, name):
    assert prediction_name(path, folders) == name


def test_images_of_one_name_in_two_folders(tmp_path):
    files = PredictionFiles(str(tmp_path), ["/data"])
    for folder in ("a", "b"):
        files.write(f"/data/{folder}/img.jpg", MASK)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == ["a/img.png", "b/img.png"]
    assert np.asarray(Image.open(tmp_path / "a" / "img.png")).tolist() == [[1] * 5] * 4


def test_two_predictions_of_one_name_are_refused(tmp_path):
    files = PredictionFiles(str(tmp_path))
    files.write("/data/a/img.jpg", MASK)
    files.write("/data/a/img.jpg", MASK)  # again in the next validation
    with pytest.raises(PredictionNameError, match=r"'/data/a/img.jpg' and '/data/b/img.jpg' would both be 'img.png'"):
        files.write("/data/b/img.jpg", MASK)


def test_ground_truth_is_not_overwritten(tmp_path):
    (tmp_path / "img.png").write_bytes(b"ground truth")
    with pytest.raises(NotOursError, match=r"'img.png'; choose another `out`"):
        PredictionFiles(str(tmp_path)).check(["/data/img.jpg"])
    with pytest.raises(NotOursError):
        PredictionFiles(str(tmp_path)).write("/data/img.jpg", MASK)
    assert (tmp_path / "img.png").read_bytes() == b"ground truth"


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path)
    with pytest.raises(OutputError, match=r"is a link to a place outside"):
        PredictionFiles(str(tmp_path / "out"), ["/data"]).check(["/data/a/img.jpg"])


@pytest.fixture
def nested(tmp_path: Path) -> Config:
    """A data set in VOC's layout with images of one name in two folders."""
    for folder in ("a", "b"):
        for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            (tmp_path / "data" / kind / folder).mkdir(parents=True)
            Image.new("L" if suffix == "png" else "RGB", (8, 6)).save(
                tmp_path / "data" / kind / folder / f"img.{suffix}"
            )
    (tmp_path / "data" / "val.txt").write_text("a/img\nb/img\n")
    dataset = {
        "type": "ImageListDataset",
        "vocabulary": "voc",
        "data_root": str(tmp_path / "data"),
        "ann_file": "val.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "pipeline": [],
    }
    evaluator = {"type": "CrfIoUMetric", "output_dir": str(tmp_path / "out")}
    return Config({"test_dataloader": {"dataset": dataset}, "test_evaluator": evaluator})


def test_the_data_set_gives_the_evaluator_its_image_folder(nested, tmp_path):
    dataset = open_data(nested, "test_dataloader")
    open_prediction_files(nested, "test_evaluator", dataset)
    settings = dict(nested.test_evaluator)
    settings.pop("type")
    metric = CrfIoUMetric(**settings, format_only=True)
    metric.dataset_meta = dataset.metainfo
    for number in range(2):
        info = dataset.get_data_info(number)
        labels = np.full((1, 6, 8), number + 1)
        sample = {"pred_sem_seg": {"data": torch.from_numpy(labels)}, "img_path": info["img_path"]}
        metric.process({"inputs": [None]}, [sample])
    metric.evaluate(2)
    for number, folder in enumerate(("a", "b"), 1):
        assert np.unique(np.asarray(Image.open(tmp_path / "out" / folder / "img.png"))).tolist() == [number]


def test_existing_files_are_reported_before_the_test(nested, tmp_path):
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "img.png").write_bytes(b"ground truth")
    with pytest.raises(NotOursError, match=r"'b/img.png'; choose another `out`"):
        open_prediction_files(nested, "test_evaluator", open_data(nested, "test_dataloader"))
