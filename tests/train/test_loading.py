import io
from collections.abc import Iterator
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

from pseudolabel.errors import ShardError
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.loading import LoadShardSample, dataset_metainfo, sample_results
from pseudolabel_train.shard_dataset import ShardDataset
from tests.shards.samples import LABELS, draw_sample, name, write_masks

VOC = load_vocabulary("voc")
META = dataset_metainfo(VOC)
STOCK = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
OURS = [{"type": "LoadShardSample"}]
TRAINING = [
    {"type": "RandomResize", "scale": (40, 30), "ratio_range": (0.5, 1.5), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (16, 16), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
COUNT = 6


@pytest.fixture(autouse=True)
def mmseg_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples as shards and as files."""
    path = tmp_path_factory.mktemp("run")
    write_masks(path / "masks", [4, 2])
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        (path / kind).mkdir()
        for number in range(COUNT):
            (path / kind / f"{name(number)}.{suffix}").write_bytes(draw_sample(number)[suffix])
    return path


def from_files(folder: Path, pipeline: list[dict]) -> BaseSegDataset:
    return BaseSegDataset(
        data_root=str(folder),
        data_prefix={"img_path": "images", "seg_map_path": "labels"},
        metainfo={key: dataset_metainfo(VOC)[key] for key in ("classes", "palette")},
        pipeline=pipeline,
    )


def both(folder: Path, before: list[dict], after: list[dict]) -> tuple[BaseSegDataset, ShardDataset]:
    return from_files(folder, STOCK[: len(before)] + after), ShardDataset(str(folder / "masks"), "voc", before + after)


def assert_same(stock: dict, ours: dict) -> None:
    assert set(ours) == set(stock) | {"key"}
    for field, value in stock.items():
        if field in ("img_path", "seg_map_path"):
            assert Path(ours[field]).stem == Path(value).stem
        elif isinstance(value, np.ndarray):
            assert ours[field].dtype == value.dtype
            assert ours[field].shape == value.shape
            assert ours[field].flags.writeable
            np.testing.assert_array_equal(ours[field], value)
        else:
            assert type(ours[field]) is type(value)
            assert ours[field] == value


def test_fields_equal_those_of_the_stock_loaders(folder: Path) -> None:
    stock, ours = from_files(folder, STOCK), ShardDataset(str(folder / "masks"), "voc", OURS)
    assert stock.metainfo == ours.metainfo
    for number in range(COUNT):
        assert_same(stock[number], ours[number])
        assert set(np.unique(ours[number]["gt_seg_map"])) == set(LABELS)
    assert ours[5]["img_path"] == f"{folder}/masks/masks-000001.tar/{name(5)}"


def test_real_images_equal_those_of_the_stock_loaders(voc_sample: Path) -> None:
    stems = sorted(path.stem for path in (voc_sample / "SegmentationClass").glob("*.png"))[:10]
    for stem in stems:
        image, mask = voc_sample / "JPEGImages" / f"{stem}.jpg", voc_sample / "SegmentationClass" / f"{stem}.png"
        fields = {"label_map": None, "reduce_zero_label": False, "seg_fields": []}
        stock = Compose(STOCK)({"img_path": str(image), "seg_map_path": str(mask), **fields})
        ours = LoadShardSample()(sample_results("s.tar", stem, image.read_bytes(), mask.read_bytes(), META))
        assert_same(stock, ours)


def test_the_training_pipeline_works_as_with_files(folder: Path) -> None:
    stock, ours = from_files(folder, STOCK + TRAINING), ShardDataset(str(folder / "masks"), "voc", OURS + TRAINING)
    varied = set()
    for number in range(COUNT):
        packed = []
        for dataset in (stock, ours):
            np.random.seed(number)
            packed.append(dataset[number])
        (one, other) = packed
        assert torch.equal(one["inputs"], other["inputs"])
        assert torch.equal(one["data_samples"].gt_sem_seg.data, other["data_samples"].gt_sem_seg.data)
        metas = [dict(sample["data_samples"].metainfo) for sample in packed]
        assert all(meta.pop("img_path") and meta.pop("seg_map_path") for meta in metas)
        assert metas[0] == metas[1]
        assert set(metas[1]) >= {"ori_shape", "img_shape", "scale_factor", "flip", "reduce_zero_label"}
        varied.add((metas[0]["flip"], metas[0]["scale_factor"]))
    assert len(varied) > 2


def test_a_test_pipeline_keeps_the_mask_at_its_size(folder: Path) -> None:
    resize = {"type": "Resize", "scale": (64, 64), "keep_ratio": True}
    stock = from_files(folder, [STOCK[0], resize, STOCK[1], {"type": "PackSegInputs"}])
    steps = [
        {"type": "LoadShardSample", "with_mask": False},
        resize,
        {"type": "LoadShardSample", "with_image": False},
        {"type": "PackSegInputs"},
    ]
    ours = ShardDataset(str(folder / "masks"), "voc", steps, test_mode=True)
    for number in range(COUNT):
        one, other = stock[number], ours[number]
        assert torch.equal(one["inputs"], other["inputs"])
        assert torch.equal(one["data_samples"].gt_sem_seg.data, other["data_samples"].gt_sem_seg.data)
        assert one["data_samples"].ori_shape == other["data_samples"].ori_shape
        assert one["data_samples"].ori_shape != one["data_samples"].img_shape


def test_iou_metric_accepts_the_samples(folder: Path) -> None:
    dataset = ShardDataset(str(folder / "masks"), "voc", [*OURS, {"type": "PackSegInputs"}])
    metric = IoUMetric()
    metric.dataset_meta = dataset.metainfo
    for number in range(COUNT):
        sample: SegDataSample = dataset[number]["data_samples"]
        truth = sample.gt_sem_seg.data
        sample.pred_sem_seg = PixelData(data=torch.where(truth == 20, 0, truth))
        metric.process({}, [sample.to_dict()])
    scores = metric.evaluate(COUNT)
    pixels = np.bincount(
        np.concatenate(
            [np.array(Image.open(io.BytesIO(draw_sample(number)["png"]))).ravel() for number in range(COUNT)]
        ),
        minlength=256,
    )
    background = pixels[0] / (pixels[0] + pixels[20])
    assert scores["mIoU"] == pytest.approx(100 * (background + 1 + 0) / 3, abs=0.02)
    assert scores["aAcc"] == pytest.approx(100 * (pixels[0] + pixels[1]) / pixels[:255].sum(), abs=0.02)


def load(members, metainfo=META) -> dict:
    results = sample_results("runs/x/masks-000003.tar", "dogs/a", members["jpg"], members["png"], metainfo)
    return LoadShardSample()(results)


def png(labels: np.ndarray, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


WHERE = "'runs/x/masks-000003.tar': sample 'dogs/a': "
HINT = "; list all problems with `pseudolabel verify runs/x`, and write it again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jpg": b""}, "the image is damaged"),
        ({"jpg": b"no image"}, "the image is damaged"),
        ({"png": b""}, "the mask: the file is empty"),
        ({"png": b"no image"}, "the mask: not an image of a known format"),
        ({"png": png(np.zeros((8, 9), np.uint8))}, r"the mask has (8, 9) pixels (H, W) where the image has (20, 24)"),
        ({"png": png(np.full((20, 24), 21, np.uint8))}, "the mask has label 21 where the vocabulary ends at 20"),
        ({"png": png(np.full((20, 24), 254, np.uint8))}, "the mask has label 254 where the vocabulary ends at 20"),
        ({"png": png(np.zeros((20, 24), np.uint8), "RGB")}, "the mask: a mask needs one label value per pixel"),
    ],
)
def test_a_broken_sample_is_named(change, message: str) -> None:
    with pytest.raises(ShardError) as caught:
        load({**draw_sample(0), **change})
    assert str(caught.value).startswith(WHERE + message)
    assert str(caught.value).endswith(HINT)


def test_labels_belong_to_the_vocabulary() -> None:
    assert load(draw_sample(0))["gt_seg_map"].max() == 255
    with pytest.raises(ShardError, match="has label 20 where the vocabulary ends at 6"):
        load(draw_sample(0), dataset_metainfo(load_vocabulary("shapes")))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("member", ["jpg", "png"])
def test_a_truncated_file_is_an_error(voc_sample: Path, member: str, share: float) -> None:
    stem = sorted(path.stem for path in (voc_sample / "SegmentationClass").glob("*.png"))[0]
    files = {
        "jpg": (voc_sample / "JPEGImages" / f"{stem}.jpg").read_bytes(),
        "png": (voc_sample / "SegmentationClass" / f"{stem}.png").read_bytes(),
    }
    assert load(files)["img"].shape == mmcv.imfrombytes(files["jpg"]).shape
    files[member] = files[member][: int(len(files[member]) * share)]
    with pytest.raises(ShardError, match="sample 'dogs/a'"):
        load(files)


WITHOUT_BACKGROUND = "name: parts\nbackground: false\nclasses: [head, arm, leg]\n"


def test_without_background_zero_is_ignored_and_classes_shift_down(tmp_path: Path) -> None:
    """As MMSegmentation's own loader does where the data set says `reduce_zero_label`."""
    (tmp_path / "parts.yaml").write_text(WITHOUT_BACKGROUND)
    metainfo = dataset_metainfo(load_vocabulary(str(tmp_path / "parts.yaml")))
    assert metainfo["classes"] == ("head", "arm", "leg")
    assert metainfo["palette"] == META["palette"][1:4]
    labels = np.array([[0, 1, 2, 3, 255]], np.uint8).repeat(2, 0)
    image = io.BytesIO()
    Image.new("RGB", (5, 2)).save(image, "JPEG")
    mask = png(labels)
    found = LoadShardSample()(sample_results("s.tar", "a", image.getvalue(), mask, metainfo))
    assert found["gt_seg_map"].tolist() == [[255, 0, 1, 2, 255]] * 2
    (tmp_path / "a.jpg").write_bytes(image.getvalue())
    (tmp_path / "a.png").write_bytes(mask)
    named = {"classes": metainfo["classes"], "palette": metainfo["palette"]}
    places = {"img_path": "", "seg_map_path": ""}
    stock = BaseSegDataset(
        data_root=str(tmp_path), data_prefix=places, metainfo=named, reduce_zero_label=True, pipeline=STOCK
    )
    assert stock.metainfo == metainfo
    assert_same(stock[0], {**found, "sample_idx": 0})
    with pytest.raises(ShardError, match="has label 4 where the vocabulary ends at 3"):
        LoadShardSample()(sample_results("s.tar", "a", image.getvalue(), png(labels + 1), metainfo))
