"""Training and testing segmenters by the real commands, on shards that the real commands wrote."""

import json
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from PIL import Image

from tests.e2e.commands import Outcome, call, expect
from tests.e2e.conftest import IMAGES, Shapes
from tests.e2e.forks import run_fork

# Prints which samples every iteration takes, and at the end a digest of the process's parameters.
HOOK = """
import hashlib
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Witness(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = sorted(sample.img_path for sample in data_batch["data_samples"])
        self.write(runner, f"iteration {runner.iter}: {names}")

    def after_train(self, runner):
        digest = hashlib.sha256()
        for name, value in sorted(runner.model.named_parameters()):
            digest.update(value.detach().numpy().tobytes())
        self.write(runner, f"parameters {digest.hexdigest()}")

    def write(self, runner, line):
        with open(f"{runner.work_dir}/witness-{get_rank()}.txt", "a") as file:
            print(line, file=file)
"""
SMALL = """
model = dict(backbone=dict(stem_channels=8, base_channels=8), decode_head=dict(in_channels=32))
train_dataloader = dict(batch_size=2, dataset=dict(shards="{shards}"))
train_cfg = dict(max_iters=6, val_interval=100)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=6, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
custom_hooks = [dict(type="ReportHook"), dict(type="Witness")]
custom_imports = dict(imports=["pseudolabel_train.register", "witness"])
"""


@pytest.fixture
def config(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own config that inherits from a shipped one, and a hook of theirs beside it."""
    monkeypatch.setenv("SHAPES_ROOT", str(shapes.data))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "witness.py").write_text(HOOK)
    path = tmp_path / "mine.py"
    shipped = Path(__file__).parents[2] / "configs" / "deeplabv2" / "deeplabv2_r18_shapes.py"
    path.write_text(f'_base_ = ["{shipped}"]\n' + SMALL.format(shards=shapes.out / "masks"))
    return path


def witnessed(folder: Path, rank: int = 0) -> list[str]:
    return (folder / f"witness-{rank}.txt").read_text().splitlines()


def test_two_processes_have_equal_parameters_and_split_the_samples(config, tmp_path):
    expect(0, run_fork("train", config, "--work-dir", tmp_path / "two", ranks=2))
    first, second = witnessed(tmp_path / "two", 0), witnessed(tmp_path / "two", 1)
    assert len(first) == len(second) == 7
    assert first[-1] == second[-1]
    assert first[-1].startswith("parameters ")
    # 4 iterations of 2 processes with 2 samples each are one pass over the 16.
    taken = "".join(first[:4] + second[:4])
    assert taken.count("masks-") == IMAGES
    assert len({name for line in first[:4] + second[:4] for name in line.split("'")[1::2]}) == IMAGES
    # Scoring on two processes, each with its own CRF workers, is scoring on one.
    checkpoint = tmp_path / "two" / "iter_6.pth"
    arguments = ["test", config, checkpoint, "--work-dir", tmp_path / "test-two", "--out", tmp_path / "masks"]
    expect(0, run_fork(*arguments, ranks=2))
    expect(0, call("test", config, checkpoint, "--work-dir", tmp_path / "test-one"))
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("test-two", "test-one")]
    assert scores[0] == scores[1]
    assert len(list((tmp_path / "masks").glob("*.png"))) == IMAGES


def test_training_resumes_and_the_result_is_scored_and_written(config, shapes, tmp_path):
    work = tmp_path / "work"
    expect(0, run_fork("train", config, "--work-dir", tmp_path / "whole"))
    expect(0, call("train", config, "--work-dir", work, "--cfg-options", "train_cfg.max_iters=3"))
    expect(0, call("train", config, "--work-dir", work, "--resume"))
    whole, parts = witnessed(tmp_path / "whole"), witnessed(work)
    assert parts[:3] == whole[:3]
    assert parts[3].startswith("parameters ")
    assert parts[4:7] == whole[3:6]
    # Neither the training data nor another checkpoint that the config names has a part in a test.
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    other = ["--cfg-options", "train_dataloader.dataset.shards=/nowhere", f"load_from={tmp_path / 'other.pth'}"]
    expect(0, call("test", config, work / "iter_6.pth", "--work-dir", work, "--out", tmp_path / "masks", *other))
    metrics = json.loads((work / "metrics.json").read_text())["test"]
    assert metrics["images"] == IMAGES
    assert metrics["split"] == "val"
    assert metrics["scales"] == [1.0, 0.75, 0.5]
    assert metrics["initialisation"] == "random"
    assert metrics["trained_on"] == str(shapes.out / "masks")
    assert (metrics["training_images"], metrics["batch"], metrics["iteration"]) == (IMAGES, 2, 6)
    assert metrics["crf"]["bilateral_sxy"] == 20
    assert "ignore_below" not in metrics["crf"]
    assert 0 <= metrics["mIoU"] <= 100
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == IMAGES
    assert {Image.open(path).mode for path in masks} == {"P"}
    assert max(np.asarray(Image.open(path)).max() for path in masks) <= 6


def test_a_stock_decoder_trains_on_shards_by_config_only(shapes, tmp_path):
    path = tmp_path / "segformer.py"
    stock = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_"
    path.write_text(f"""
_base_ = ["{stock}/models/segformer_mit-b0.py", "{stock}/default_runtime.py"]
custom_imports = dict(imports=["pseudolabel_train.register"])
model = dict(
    data_preprocessor=dict(size=(96, 96)),
    backbone=dict(embed_dims=8, num_layers=[1, 1, 1, 1]),
    decode_head=dict(in_channels=[8, 16, 40, 64], channels=16, num_classes=7),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ShardDataset",
        shards="{shapes.out / "masks"}",
        vocabulary="shapes",
        pipeline=[
            dict(type="LoadShardSample"),
            dict(type="RandomCrop", crop_size=(96, 96)),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4)
default_hooks = dict(logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", by_epoch=False))
""")
    expect(0, call("train", path, "--work-dir", tmp_path / "work"))
    (log,) = (tmp_path / "work").glob("*/*.log")
    losses = [line for line in log.read_text().splitlines() if "decode.loss_ce" in line]
    assert len(losses) == 4
    assert "nan" not in "".join(losses)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none"], "no config 'none': give a path, or one of deeplabv2_r101_voc12_coco"),
        (["train", "my/deeplabv2_r18_shapes.py"], "no config 'my/deeplabv2_r18_shapes.py'"),
        (["train", "base"], "'base' has no train_dataloader"),
        (["test", "base", "none.pth"], "'base' has no test_dataloader"),
        (["train", "deeplabv2_r18_shapes", "--cfg-options", "batch"], "--cfg-options batch: write KEY=VALUE"),
        (["train", "deeplabv2_r18_shapes", "--init", "none.pth"], "no weights in 'none.pth'"),
        (["train", "deeplabv2_r18_shapes"], "no image list '/nowhere/ImageSets/Segmentation/val.txt'"),
        (["test", "deeplabv2_r18_shapes", "none.pth", "--split", "test"], "test.txt': set the data set's folder"),
    ],
)
def test_config_errors_are_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAPES_ROOT", "/nowhere")
    monkeypatch.chdir(tmp_path)
    outcome = call(*arguments)
    assert outcome.is_clean_error(), outcome.err
    assert message in outcome.err


def test_a_split_without_ground_truth_is_predicted(config, shapes, own_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAPES_ROOT", str(own_data))
    for mask in (own_data / "SegmentationClass").iterdir():
        mask.unlink()
    (own_data / "ImageSets/Segmentation/val.txt").rename(own_data / "ImageSets/Segmentation/test.txt")
    checkpoint = untrained(config, tmp_path)
    refused = call("test", config, checkpoint, "--split", "test")
    assert refused.is_clean_error()
    assert "without ground truth there is nothing to score; set --out to a folder for the predictions" in refused.err
    work = ["--work-dir", tmp_path / "work", "--out", tmp_path / "masks"]
    expect(0, call("test", config, checkpoint, "--split", "test", *work))
    assert len(list((tmp_path / "masks").glob("*.png"))) == IMAGES
    packed = call("pack-voc-test", tmp_path / "masks", own_data)
    assert f"{IMAGES} predictions -> {tmp_path / 'masks.tar.gz'}" in expect(0, packed).out


def test_a_split_with_some_masks_is_refused(config, own_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAPES_ROOT", str(own_data))
    sorted((own_data / "SegmentationClass").iterdir())[3].unlink()
    outcome = call("test", config, untrained(config, tmp_path), "--split", "val")
    assert outcome.is_clean_error()
    assert f"1 of the {IMAGES} images of 'val' have no mask" in outcome.err


def test_shards_are_scored_and_visualized_as_validation_data(config, shapes, tmp_path):
    path = tmp_path / "validated.py"
    path.write_text(f"""
_base_ = ["{config}"]
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ShardDataset",
        shards="{shapes.out / "masks"}",
        vocabulary="shapes",
        pipeline=[dict(type="LoadShardSample"), dict(type="PackSegInputs")],
    ),
)
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(visualization=dict(interval=6))
""")
    expect(0, run_fork("train", path, "--work-dir", tmp_path / "work"))  # MMEngine's visualizer is one per process
    metrics = json.loads((tmp_path / "work" / "metrics.json").read_text())["val"]
    assert (metrics["split"], metrics["images"], metrics["iteration"]) == (str(shapes.out / "masks"), IMAGES, 1)
    images = sorted(path.name for path in (tmp_path / "work").glob("*/vis_data/vis_image/*.png"))
    assert images == [f"val_val_{number:06d}_1.png" for number in (1, 7, 13)]


def test_an_error_in_a_config_and_stock_evaluators(config, shapes, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("model = nothing\n")
    outcome = call("train", broken)
    assert outcome.is_clean_error()
    assert "broken.py' cannot be used: NameError" in outcome.err
    stock = tmp_path / "stock.py"
    stock.write_text(f'_base_ = ["{config}"]\ntest_evaluator = [dict(_delete_=True, type="IoUMetric")]\n')
    checkpoint = untrained(config, tmp_path)
    refused = call("test", stock, checkpoint, "--out", tmp_path / "masks")
    assert refused.is_clean_error()
    assert "palette PNGs are written by type='CrfIoUMetric'" in refused.err
    expect(0, call("test", stock, checkpoint, "--work-dir", tmp_path / "work"))
    metrics = json.loads((tmp_path / "work" / "metrics.json").read_text())["test"]
    assert (metrics["crf"], metrics["initialisation"]) == (None, "unknown")


def untrained(config: Path, folder: Path) -> Path:
    """A checkpoint of the config's model before any training."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    torch.save({"state_dict": model.state_dict()}, folder / "untrained.pth")
    return folder / "untrained.pth"


def test_another_models_checkpoint_is_refused(config, tmp_path):
    checkpoint = untrained(config, tmp_path)
    options = ["--cfg-options", "model.decode_head.dilations=[1,2]", "--work-dir", tmp_path / "work"]
    outcome: Outcome = call("test", config, checkpoint, *options)
    assert outcome.is_clean_error()
    assert "the config builds another model: the file has 'decode_head.branches.2.weight' besides" in outcome.err


def test_help_shows_common_options(tmp_path):
    for command, word in (("train", "--cfg-options"), ("test", "--split"), ("pack-voc-test", "--split")):
        assert word in expect(0, call(command, "--help")).out
