"""Training elsewhere, from exports: the recipes run, and the loss falls."""

import io
import runpy
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import pseudolabel as pl
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members
from pseudolabel.records import LabelMap
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.classes import write_classes
from pseudolabel.shards.sample import encode_mask
from pseudolabel.vocabulary import load_vocabulary
from tests.shards.samples import write_shard

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def draw(number: int) -> Members:
    scene, buffer = draw_scene(np.random.default_rng(number), 64), io.BytesIO()
    scene.image.save(buffer, "JPEG")
    labels = scene.labels.copy()
    labels[:2] = 255
    return encode_mask(buffer.getvalue(), LabelMap("", labels), {})


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Exact masks of 12 images of Shapes, as a run would leave them."""
    folder = tmp_path / "masks"
    folder.mkdir()
    samples = {f"scene {number}": draw(number) for number in range(12)}
    write_shard(folder / "masks-000000.tar", samples)
    write_classes(Folder(str(folder)), load_vocabulary("shapes").names)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "to"), [("train_pytorch", "png"), ("train_segformer", "hf")])
def test_the_loss_falls(masks: Path, tmp_path: Path, monkeypatch, name: str, to: str) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    exported = pl.export(masks, to=to, folder=tmp_path / to, split=0.9)
    assert exported.splits["train"] >= 8
    torch.manual_seed(0)
    train = runpy.run_path(str(EXAMPLES / f"{name}.py"))["train"]
    losses = train(tmp_path / to if to == "png" else str(tmp_path / to), steps=24)
    assert all(np.isfinite(losses))
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:2])
