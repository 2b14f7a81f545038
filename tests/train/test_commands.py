"""How the commands change a config before the Runner sees it."""

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from pseudolabel_train import commands
from pseudolabel_train.config import find_config
from pseudolabel_train.errors import ConfigError
from pseudolabel_train.initial import choose_initial


@pytest.fixture
def cfg() -> Config:
    return Config.fromfile(find_config("deeplabv2_r101_voc12_imagenet"))


@pytest.mark.parametrize("name", ["deeplabv2_r18_shapes", "deeplabv2_r18_shapes.py"])
def test_a_shipped_config_is_found_by_name_and_by_its_path_in_the_project(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == find_config("configs/deeplabv2/deeplabv2_r18_shapes.py")
    with pytest.raises(ConfigError):
        find_config(f"elsewhere/{name}")


def test_a_segmenters_weights_replace_the_backbones(cfg, tmp_path):
    """Or the backbone's own would be fetched first, and stop a machine without a network."""
    torch.save({"backbone.conv1.weight": torch.ones(1)}, tmp_path / "whole.pth")
    choose_initial(cfg, str(tmp_path / "whole.pth"))
    assert cfg.model.init_cfg.checkpoint == f"weights:{tmp_path / 'whole.pth'}"
    assert "init_cfg" not in cfg.model.backbone


def test_a_backbones_weights_replace_pretrained(cfg, tmp_path):
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "backbone.pth")
    cfg.model.pretrained = "open-mmlab://resnet101_v1c"
    choose_initial(cfg, str(tmp_path / "backbone.pth"))
    assert cfg.model.backbone.init_cfg.checkpoint == f"weights:{tmp_path / 'backbone.pth'}"
    assert "pretrained" not in cfg.model
    assert "init_cfg" not in cfg.model


def test_unused_initial_weights_are_refused(cfg, tmp_path):
    cfg.load_from = "other.pth"
    with pytest.raises(ConfigError, match=r"load_from='other\.pth', which takes precedence"):
        choose_initial(cfg, "mine.pth")
    cfg.load_from = None
    cfg.model.pop("backbone")
    with pytest.raises(ConfigError, match="MultiScaleSegmentor has no backbone"):
        choose_initial(cfg, "mine.pth")


def test_the_launchers_precision_is_used_only_on_a_gpu(cfg, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="bfloat16 only on a GPU"):
        commands._choose_precision(cfg)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    commands._choose_precision(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ("AmpOptimWrapper", "bfloat16")
    cfg.optim_wrapper.dtype = "float16"  # the config's own choice stays
    commands._choose_precision(cfg)
    assert cfg.optim_wrapper.dtype == "float16"


def test_a_batch_size_other_than_the_recipes_warns(cfg):
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    commands._compare_batch(cfg)
    assert not lines
    cfg.optim_wrapper.accumulative_counts = 4
    commands._compare_batch(cfg)
    logger.removeHandler(handler)
    assert len(lines) == 1
    assert "the total batch is 40 (10 per process), the config is meant for 10" in lines[0]
