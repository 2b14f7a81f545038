"""What people hand to `train` and `test` by mistake, and data without background: one message, or the right score."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.e2e.commands import call, expect
from tests.e2e.conftest import Shapes

SMALL = """
model = dict(backbone=dict(stem_channels=8, base_channels=8), decode_head=dict(in_channels=32))
train_dataloader = dict(batch_size=2, persistent_workers=True, dataset=dict(shards="{shards}"))
val_dataloader = dict(persistent_workers=True)
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


@pytest.fixture
def config(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHAPES_ROOT", str(shapes.data))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    shipped = Path(__file__).parents[2] / "configs" / "deeplabv2" / "deeplabv2_r18_shapes.py"
    path.write_text(f'_base_ = ["{shipped}"]\n' + SMALL.format(shards=shapes.out / "masks"))
    return path


def refused(message: str, *arguments: object) -> None:
    outcome = call(*arguments)
    assert outcome.is_clean_error(), outcome.err
    assert message in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train_dataloader.dataset.vocabulary=voc"], "are of vocabulary 'shapes' of "),
        (["model.decode_head.num_classes=5"], "model.decode_head.num_classes is 5, but train_dataloader has 7 classes"),
        (
            ["val_dataloader.dataset.vocabulary=voc"],
            "7 classes (vocabulary 'shapes': background, circle, square, ...), v",
        ),
        (["val_dataloader.dataset.data_prefix.img_path=Nowhere"], "no folder of images"),
        (["val_dataloader.dataset.data_prefix.seg_map_path=Nowhere"], "16 of 16 masks are missing, the first is "),
        (["val_evaluator=None"], "has val_dataloader, but no val_evaluator"),
        (["load_from=http://127.0.0.1:9/x.pth"], "--init PATH/x.pth"),
        (["load_from=page.pth"], "'page.pth' is a web page"),
        (["model.type=Nothing"], "mine.py' cannot be built: KeyError"),
        (["work_dir=/dev/null/work"], "--work-dir"),
    ],
)
def test_invalid_settings_end_before_training(config, options, message, tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")
    refused(message, "train", config, "--cfg-options", *options)


def test_other_files_are_named_before_the_model_is_built(config, tmp_path):
    broken = ["--cfg-options", "model.type=Nothing"]
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused("lfs.pth' is a Git LFS pointer", "test", config, tmp_path / "lfs.pth", *broken)
    refused("lfs.pth' is a Git LFS pointer", "train", config, "--init", tmp_path / "lfs.pth", *broken)


def test_colour_masks_of_the_validation_set_are_named(config, own_data, monkeypatch):
    monkeypatch.setenv("SHAPES_ROOT", str(own_data))
    for mask in (own_data / "SegmentationClass").iterdir():
        Image.open(mask).convert("RGB").save(mask)
    refused("a mask needs one label value per pixel, this one has mode RGB", "train", config)


def test_training_without_workers_resumes_and_follows_last_checkpoint(config, tmp_path):
    work = tmp_path / "work"
    expect(0, call("train", config, "--work-dir", work))
    shutil.move(work, tmp_path / "moved")
    longer = ["--cfg-options", "train_cfg.max_iters=3", "train_cfg.val_interval=3"]
    expect(0, call("train", config, "--work-dir", tmp_path / "moved", "--resume", *longer))
    logs = "".join(path.read_text() for path in (tmp_path / "moved").glob("*/*.log"))
    assert logs.count("Iter(train)") == 3
    report = json.loads((tmp_path / "moved/metrics.json").read_text())["val"]
    assert (report["initialisation"], report["iteration"]) == ("random", 3)
    newest = tmp_path / "moved/iter_3.pth"
    newest.write_bytes(newest.read_bytes()[:9000])
    refused("is cut off; download or copy it again; to resume from 'iter_2.pth' set", "train", config, "--resume",
            "--work-dir", tmp_path / "moved")  # fmt: skip
    # Every image's CRF fails here, because its lattice has too many points for their numbers.
    (tmp_path / "moved/last_checkpoint").write_text(str(work / "iter_2.pth"))
    overflow = ["test_evaluator.crf.engine=torch", "test_evaluator.crf.bilateral_sxy=1e-7"]
    last = tmp_path / "moved/last_checkpoint"
    outcome = call("test", config, last, "--work-dir", tmp_path / "test", "--cfg-options", *overflow)
    assert "test: 16 of 16 images failed: 'val_000001': DenseCRF: " in expect(3, outcome).out
    report = json.loads((tmp_path / "test/metrics.json").read_text())["test"]
    assert (report["not_scored"], len(report["failures"])) == (16, 16)
    assert "mIoU" not in report


def test_without_background_all_commands_number_classes_equally(config, shapes, tmp_path):
    """The score of `test` is that of `evaluate` on the masks that it writes, where 0 says that there is no label."""
    names = "[circle, square, triangle, star, cross, heart]"
    vocabulary, masks = tmp_path / "parts.yaml", tmp_path / "masks"
    vocabulary.write_text(f"name: parts\nbackground: false\nclasses: {names}\n")
    masks.mkdir()
    for shard in (shapes.out / "masks").glob("*.tar"):
        shutil.copy(shard, masks)
    options = [
        "--cfg-options",
        f"train_dataloader.dataset.shards={masks}",
        f"train_dataloader.dataset.vocabulary={vocabulary}",
        f"val_dataloader.dataset.vocabulary={vocabulary}",
        f"test_dataloader.dataset.vocabulary={vocabulary}",
        "model.decode_head.num_classes=6",
        "test_evaluator.crf=None",
    ]
    torch.manual_seed(0)
    expect(0, call("train", config, "--work-dir", tmp_path / "work", *options))
    written = ["--out", tmp_path / "written"]
    checkpoint = tmp_path / "work/iter_2.pth"
    expect(0, call("test", config, checkpoint, "--work-dir", tmp_path / "work", *written, *options))
    labels = {value for path in (tmp_path / "written").glob("*.png") for value in Image.open(path).tobytes()}
    assert labels <= {1, 2, 3, 4, 5, 6}
    scored = [*shapes.at(tmp_path / "scored"), "--vocabulary", vocabulary, "--predictions", tmp_path / "written"]
    expect(0, call("evaluate", "masks", *scored, "--source.labels", "none"))
    found = json.loads((tmp_path / "scored/metrics.json").read_text())["masks"]["miou"]
    expected = json.loads((tmp_path / "work/metrics.json").read_text())["test"]["mIoU"]
    assert 100 * found == pytest.approx(expected, abs=0.006)
    assert expected > 0
