"""The shipped configs: each builds, and the recipe's numbers are what the optimizer and the schedule really do."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmseg.registry import MODELS, TRANSFORMS
from torch import nn

import pseudolabel_train.register  # noqa: F401
from pseudolabel_train.config import find_config
from pseudolabel_train.loss import BalancedCrossEntropyLoss

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs/deeplabv2").glob("deeplabv2_*.py"))
VOC = [name for name in CONFIGS if "voc12" in name]


def load(name: str) -> Config:
    return Config.fromfile(find_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds(name):
    cfg = load(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.num_classes == (21 if name in VOC else 7)
    for step in cfg.train_dataloader.dataset.pipeline:
        TRANSFORMS.build(step)
    assert "--cfg-options" in find_config("deeplabv2_r101_voc12_imagenet").read_text()
    assert f"pseudolabel train {name}" in " ".join(find_config(name).read_text().split())


@pytest.fixture(scope="module")
def recipe():
    """The COCO recipe's config, model and optimizer; that of ImageNet differs in learning rate and loss."""
    cfg = load("deeplabv2_r101_voc12_coco")
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    return cfg, model, build_optim_wrapper(model, cfg.optim_wrapper)


def groups_of(model, wrapper) -> dict[str, dict]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    # MMEngine adds a group of its own that only carries the base learning rate into logs.
    groups = [(id(parameter), group) for group in wrapper.param_groups for parameter in group["params"]]
    return {names[number]: group for number, group in groups if number in names}


def test_learning_rates_and_decay_by_group(recipe):
    _, model, wrapper = recipe
    found = groups_of(model, wrapper)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in trained:
        group = found[name]
        factor = 20 if name.endswith("bias") else 10
        expected = (2.5e-4, 5e-4) if name.startswith("backbone.") else (2.5e-4 * factor, 0 if factor == 20 else 5e-4)
        assert (group["lr"], group["weight_decay"]) == pytest.approx(expected), name
        assert group["momentum"] == 0.9
    assert sum("decode_head" in name for name in trained) == 8


def test_batch_norm_is_frozen(recipe):
    _, model, _ = recipe
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 104
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)


def test_the_schedule_is_poly_to_zero():
    cfg = load("deeplabv2_r101_voc12_coco")
    (poly,) = cfg.param_scheduler
    assert poly.end == cfg.train_cfg.max_iters == 20000
    poly.end = 101  # the same curve, walked in a moment
    wrapper = build_optim_wrapper(nn.Linear(3, 2), cfg.optim_wrapper)
    schedule = PARAM_SCHEDULERS.build(poly, default_args={"optimizer": wrapper})
    rates = []
    for _ in range(101):
        rates.append(wrapper.get_lr()["lr"][0])
        schedule.step()
    assert rates == pytest.approx([2.5e-4 * (1 - iteration / 100) ** 0.9 for iteration in range(101)], abs=1e-12)


def test_scales_crop_batch_and_crf(recipe):
    cfg, model, _ = recipe
    choice = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == "RandomChoice")
    assert [branch[0].scale_factor for branch in choice.transforms] == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert next(s for s in cfg.train_dataloader.dataset.pipeline if s.type == "RandomCrop").crop_size == (321, 321)
    assert sorted(model.train_cfg.scales) == sorted(model.test_cfg.scales) == [0.5, 0.75, 1.0]
    assert cfg.train_dataloader.batch_size == 10
    assert cfg.test_evaluator.crf == {}
    assert "crf" not in cfg.val_evaluator


def test_from_imagenet_the_loss_is_balanced_and_the_rate_lower():
    cfg = load("deeplabv2_r101_voc12_imagenet")
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert isinstance(MODELS.build(cfg.model.decode_head.loss_decode), BalancedCrossEntropyLoss)


def test_gradients_accumulate_to_those_of_one_batch():
    """Two batches of five make the same step as one of ten, as deeplab-pytorch trains."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(10, 3), torch.randn(10, 2)
    cfg = load("deeplabv2_r101_voc12_coco").optim_wrapper
    weights = []
    for parts in (1, 2):
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        cfg.accumulative_counts = parts
        wrapper = build_optim_wrapper(model, cfg)
        wrapper.initialize_count_status(model, 0, parts)
        for part in range(parts):
            chosen = slice(part * 10 // parts, (part + 1) * 10 // parts)
            wrapper.update_params((model(inputs[chosen]) - targets[chosen]).square().mean())
        weights.append(model.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("name", [name for name in VOC if name.endswith("_full")])
def test_full_supervision_differs_from_its_recipe_only_in_the_data(name):
    full, weak = load(name), load(name.removesuffix("_full"))
    assert full.train_dataloader.dataset.ann_file == "ImageSets/Segmentation/train_aug.txt"
    assert full.train_dataloader.dataset.pipeline[2:] == weak.train_dataloader.dataset.pipeline[1:]
    for key in ("model", "optim_wrapper", "param_scheduler", "train_cfg", "val_dataloader", "test_evaluator"):
        assert full[key] == weak[key]
    del full.train_dataloader["dataset"], weak.train_dataloader["dataset"]
    assert full.train_dataloader == weak.train_dataloader
