"""PASCAL VOC's folders, read by MMSegmentation's own data set and by our own source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel as pl
from pseudolabel.config import SourceConfig
from pseudolabel.sources.source import open_source
from pseudolabel.vocabulary import vocabulary_of
from tests.e2e.commands import samples
from tests.exports.conftest import NAMES


@pytest.fixture
def voc(run: Path, tmp_path: Path) -> Path:
    assert pl.export(run, to="voc", folder=tmp_path / "voc", split=0.5).samples == 6
    return tmp_path / "voc"


def listed(voc: Path, name: str) -> list[str]:
    return (voc / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().splitlines()


def test_files_are_the_shards_own_bytes(run: Path, voc: Path) -> None:
    for key, members in samples(run / "masks").items():
        assert (voc / "JPEGImages" / f"{key}.jpg").read_bytes() == members["jpg"]
        assert (voc / "SegmentationClass" / f"{key}.png").read_bytes() == members["png"]


def test_lists_name_every_key_once(voc: Path, drawn) -> None:
    train, val = listed(voc, "train"), listed(voc, "val")
    assert sorted(train + val) == sorted(drawn) == sorted(listed(voc, "trainval"))
    assert train
    assert val


def test_without_a_split_all_samples_are_for_training(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="voc", folder=tmp_path / "all")
    assert sorted(listed(tmp_path / "all", "train")) == sorted(drawn)
    assert not (tmp_path / "all" / "ImageSets" / "Segmentation" / "val.txt").exists()


def test_ignored_pixels_become_background_on_request(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="voc", folder=tmp_path / "all", ignore=0)
    with Image.open(tmp_path / "all" / "SegmentationClass" / "ignored.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), np.where(drawn["ignored"] == 255, 0, drawn["ignored"]))


def stock_data_set(voc: Path, name: str, steps: list[dict]) -> Any:
    """MMSegmentation's `PascalVOCDataset` as its VOC configs set it up."""
    datasets = pytest.importorskip("mmseg.datasets", reason="mmseg is not installed; it comes with the extra train")
    return datasets.PascalVOCDataset(
        f"ImageSets/Segmentation/{name}.txt",
        data_root=str(voc),
        data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        pipeline=[{"type": "LoadImageFromFile"}, {"type": "mmseg.LoadAnnotations"}, *steps],
    )


def test_mmsegmentations_stock_data_set_reads_images_and_masks(voc: Path, drawn) -> None:
    found = {}
    for name in ("train", "val"):
        data = stock_data_set(voc, name, [])
        found |= {key: data[number] for number, key in enumerate(listed(voc, name))}
    assert found.keys() == drawn.keys()
    for key, labels in drawn.items():
        np.testing.assert_array_equal(found[key]["gt_seg_map"], labels)
        assert found[key]["img"].shape == (*labels.shape, 3)


@pytest.mark.slow
def test_mmsegmentation_trains_on_the_stock_data_set(voc: Path) -> None:
    data = stock_data_set(voc, "trainval", [{"type": "mmseg.PackSegInputs"}])
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    backbone = {"type": "ResNet", "depth": 18, "base_channels": 4, "norm_cfg": {"type": "BN"}, "style": "pytorch"}
    head = {"type": "FCNHead", "in_channels": 32, "channels": 16, "num_convs": 1, "num_classes": 21, "in_index": 3}
    scale = {
        "type": "SegDataPreProcessor",
        "mean": [127.0] * 3,
        "std": [60.0] * 3,
        "size": (40, 56),
        "seg_pad_val": 255,
    }
    with DefaultScope.overwrite_default_scope("mmseg"):
        torch.manual_seed(0)
        model = MODELS.build({
            "type": "EncoderDecoder", "data_preprocessor": scale, "backbone": backbone,
            "decode_head": {**head, "norm_cfg": {"type": "BN"}},
        })  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        losses = []
        for _ in range(8):
            inputs = model.data_preprocessor(pseudo_collate([data[number] for number in range(len(data))]), True)
            loss = model(**inputs, mode="loss")["decode.loss_ce"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_our_own_source_reads_it_back(voc: Path, drawn) -> None:
    config = SourceConfig(kind="voc", path=str(voc), split="trainval", labels="masks")
    source = open_source(config, vocabulary_of(NAMES[1:]))
    assert {entry.key for entry in source.entries} == drawn.keys()
    for entry in source.entries:
        truth = source.ground_truth(entry, drawn[entry.key].shape)
        assert truth is not None
        np.testing.assert_array_equal(truth.labels, drawn[entry.key])
