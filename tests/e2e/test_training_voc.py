"""The R101 recipe of VOC itself on a few real images: it learns, resumes, scores with scales and CRF, and is packed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmseg.models import ResNet
from PIL import Image

from tests.e2e.commands import call, expect
from tests.e2e.forks import run_fork

CONFIG = "deeplabv2_r101_voc12_imagenet_full"
ITERATIONS = 8


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """Weights of a ResNet-101 under torchvision's names, seeded and random.

    Batch norm is frozen in this recipe, so the residual branches are scaled to keep the variance; what real weights
    would do by themselves.
    """
    torch.manual_seed(0)
    model = ResNet(depth=101, zero_init_residual=False)
    model.init_weights()
    state = model.state_dict()
    for name in state:
        if name.endswith("bn3.weight"):
            state[name].fill_(0.2)
    path = tmp_path_factory.mktemp("weights") / "resnet101.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.fixture
def voc(voc_sample: Path, tmp_path: Path, monkeypatch) -> Path:
    """A data set of four training images and one validation image of the sample, at half their size."""
    root = tmp_path / "VOC2012"
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    (root / "SegmentationClassAug").symlink_to("SegmentationClass")
    for split, count, ours in (("train", 4, "train_aug"), ("val", 1, "val")):
        ids = (voc_sample / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:count]
        (root / f"ImageSets/Segmentation/{ours}.txt").write_text("\n".join(ids) + "\n")
        for name in [f"{folder}/{id_}" for id_ in ids for folder in ("JPEGImages", "SegmentationClass")]:
            (path,) = voc_sample.glob(f"{name}.*")
            image = Image.open(path)
            half = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
            half.save(root / path.relative_to(voc_sample))
    monkeypatch.setenv("VOC_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    return root


def options(*further: str) -> list[str]:
    """The recipe on four small crops, with a learning rate that shows something within eight iterations."""
    return [
        "--cfg-options",
        "train_dataloader.batch_size=4",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "test_dataloader.num_workers=0",
        "test_dataloader.persistent_workers=False",
        "model.data_preprocessor.size=(65,65)",
        "train_dataloader.dataset.pipeline.3.crop_size=(65,65)",
        "optim_wrapper.optimizer.lr=3e-3",
        f"train_cfg.max_iters={ITERATIONS}",
        "train_cfg.val_interval=1000",
        "default_hooks.logger.interval=1",
        "default_hooks.checkpoint.interval=4",
        *further,
    ]


def losses(work: Path) -> list[float]:
    logs = sorted(work.glob("*/*.log"))
    lines = [line for log in logs for line in log.read_text().splitlines() if "Iter(train)" in line]
    return [float(re.search(r"  loss: ([\d.]+)", line)[1]) for line in lines]


@pytest.mark.timeout(600)
def test_r101_learns_resumes_and_is_tested_with_scales_and_crf(voc, backbone, tmp_path):
    work = ["--work-dir", tmp_path / "work", "--init", backbone]
    # In a process of its own, for TensorBoard's backend: MMEngine's visualizer is one per process, whatever the config.
    expect(0, run_fork("train", CONFIG, *work, *options("train_cfg.max_iters=4")))
    expect(0, call("train", CONFIG, *work, "--resume", *options()))
    found = losses(tmp_path / "work")
    assert len(found) == ITERATIONS
    assert min(found[-2:]) < 0.8 * found[0]
    checkpoint = tmp_path / "work" / f"iter_{ITERATIONS}.pth"
    expect(0, call("test", CONFIG, checkpoint, *work[:2], "--out", tmp_path / "masks", *options()))
    report = json.loads((tmp_path / "work" / "metrics.json").read_text())["test"]
    assert (report["split"], report["images"]) == ("val", 1)
    assert report["scales"] == [1.0, 0.75, 0.5]
    assert report["crf"]["bilateral_sxy"] == 67
    assert report["initialisation"] == f"weights:{backbone}"
    assert (report["trained_on"], report["training_images"], report["iteration"]) == ("train_aug", 4, ITERATIONS)
    assert list((tmp_path / "work").glob("*/vis_data/events.out.tfevents.*"))
    for path in (tmp_path / "masks").glob("*.png"):
        mask, image = Image.open(path), Image.open(voc / "JPEGImages" / f"{path.stem}.jpg")
        assert mask.size == image.size
        assert np.asarray(mask).max() <= 20
    packed = call("pack-voc-test", tmp_path / "masks", voc, "--split", "val")
    assert "1 predictions" in expect(0, packed).out
