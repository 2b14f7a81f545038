"""`pseudolabel train` and `pseudolabel test`: MMEngine's Runner, on the processes that Accelerate started."""

import os
from logging import WARNING
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from pseudolabel.errors import FAILED_SAMPLES_EXIT
from pseudolabel_train.classes import check_heads, check_same
from pseudolabel_train.config import prepare, require
from pseudolabel_train.data import check_data, lacking_masks, loads_masks, open_data, without_masks
from pseudolabel_train.errors import ConfigError
from pseudolabel_train.explained import build_runner, explained
from pseudolabel_train.initial import check_initial_of, choose_initial, fetch_initial
from pseudolabel_train.metric import CrfIoUMetric
from pseudolabel_train.prediction_files import open_prediction_files
from pseudolabel_train.report import ReportHook, check_work_dir, failures, total_batch
from pseudolabel_train.resume import choose_checkpoint
from pseudolabel_train.weights import load_trained, read_trained

FAILURES_SHOWN = 3
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}


def train(config: str, work_dir: Path | None, resume: bool, init: str, options: list[str]) -> int:
    """Train by a config; see `pseudolabel train --help`.

    Raises:
        ConfigError: if the config or an option cannot be used, or model and data do not fit.
        WeightsError: if the initial weights, or the checkpoint to resume from, cannot be used.
        UserError: what is wrong with the data.
    """
    cfg = prepare(config, work_dir, options)
    require(cfg, config, "train")
    if init:
        choose_initial(cfg, init)
    if resume or cfg.get("resume"):
        choose_checkpoint(cfg)
    _check_data(cfg)
    _choose_precision(cfg)
    fetch_initial(cfg)
    with explained(cfg, "train_dataloader"):
        runner = build_runner(cfg)
        _compare_batch(cfg)
        check_initial_of(runner.cfg, _unwrap(runner.model))
        runner.train()
    return 0


def test(config: str, checkpoint: str, work_dir: Path | None, split: str, out: str, options: list[str]) -> int:
    """Score a checkpoint, or predict with it; see `pseudolabel test --help`.

    Raises:
        ConfigError: if the config or an option cannot be used, model and data do not fit, or nothing would come of it.
        WeightsError: if the checkpoint is none, or not of the config's model.
        UserError: what is wrong with the data.
    """
    cfg = prepare(config, work_dir, options)
    require(cfg, config, "test")
    cfg.load_from, cfg.resume = None, False  # the weights are those of the command line
    if split:
        _choose_split(cfg, split)
    _choose_output(cfg, out)
    dataset = open_data(cfg, "test_dataloader")
    trained = read_trained(checkpoint)
    check_heads(cfg, "test_dataloader", dataset)
    check_data(cfg, "test_dataloader", dataset)
    check_work_dir(cfg)
    open_prediction_files(cfg, "test_evaluator", dataset)
    with explained(cfg, "test_dataloader"):
        runner = build_runner(cfg)
        load_trained(_unwrap(runner.model), trained)
        next(hook for hook in runner.hooks if isinstance(hook, ReportHook)).training |= trained.training
        runner.test()
    return _report_failures(failures(runner.test_evaluator.metrics), len(dataset))


def _report_failures(failed: dict[str, str], images: int) -> int:
    """Print which images were left without a prediction and why; give the exit status, on the first rank alone."""
    if not failed or not is_main_process():
        return 0
    shown = "; ".join(f"'{key}': {said}" for key, said in list(failed.items())[:FAILURES_SHOWN])
    more = f"; and {len(failed) - FAILURES_SHOWN} more, see metrics.json" if len(failed) > FAILURES_SHOWN else ""
    print(f"test: {len(failed)} of {images} images failed: {shown}{more}")
    return FAILED_SAMPLES_EXIT


def _check_data(cfg: Config) -> None:
    """Open and look at the data of training and validation, and compare their classes with each other and the model."""
    val, train = (open_data(cfg, name) if cfg.get(name) else None for name in ("val_dataloader", "train_dataloader"))
    check_heads(cfg, "train_dataloader", train)
    if val is not None:
        check_same(train, val)
    for name, dataset in (("train_dataloader", train), ("val_dataloader", val)):
        if dataset is not None:
            check_data(cfg, name, dataset)
    check_work_dir(cfg)
    if val is not None:
        open_prediction_files(cfg, "val_evaluator", val)


def _choose_split(cfg: Config, split: str) -> None:
    """Test on another list of the data set; where no image of it has a mask, there is no ground truth to score with."""
    dataset = cfg.test_dataloader.dataset
    prefix = dataset.get("data_prefix") or {}
    if not dataset.get("ann_file") or not prefix.get("seg_map_path"):
        raise ConfigError(
            f"`split` {split} needs a data set with an ann_file and a data_prefix.seg_map_path, not a "
            f"{dataset.type} without; name the data with `cfg_options` test_dataloader.dataset..."
        )
    dataset.ann_file = str(Path(dataset.ann_file).with_name(f"{split}.txt"))
    if not loads_masks(dataset):
        return
    opened = open_data(cfg, "test_dataloader")
    lacking = lacking_masks(opened)
    if len(lacking) == len(opened):
        without_masks(cfg, "test_dataloader")
        for evaluator in _evaluators(cfg):
            evaluator.format_only = True
    elif lacking:
        folder = Path(dataset.get("data_root") or "") / prefix["seg_map_path"]
        raise ConfigError(
            f"{len(lacking)} of the {len(opened)} images of '{split}' have no mask in '{folder}', "
            f"such as {lacking[0]}; name another folder with test_dataloader.dataset.data_prefix.seg_map_path=..."
        )


def _choose_output(cfg: Config, out: str) -> None:
    evaluators = _evaluators(cfg)
    writers = [one for one in evaluators if one.type in (CrfIoUMetric, CrfIoUMetric.__name__)]
    if out and not writers:
        raise ConfigError(f"`out` {out}: palette PNGs are written by type='CrfIoUMetric' in test_evaluator; use that")
    for one in writers if out else []:
        one.output_dir = out
    if all(one.get("format_only") and not one.get("output_dir") for one in evaluators):
        raise ConfigError("there is no ground truth to score with; name a folder for the predictions with `out`")


def _evaluators(cfg: Config) -> list[Any]:
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def _choose_precision(cfg: Config) -> None:
    """Take over what `accelerate launch --mixed_precision` asks for, unless the config chose an own wrapper."""
    precision = PRECISIONS.get(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"))
    if precision is None or cfg.optim_wrapper.type != "OptimWrapper":
        return
    if not torch.cuda.is_available():
        raise ConfigError(f"MMEngine trains in {precision} on a GPU alone; launch with --mixed_precision no")
    cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype=precision)


def _compare_batch(cfg: Config) -> None:
    """Warn where the number of processes makes another recipe of the config's; nobody means batch 80 by 8 GPUs."""
    wanted = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    found = total_batch(cfg)
    if wanted and found != wanted:
        print_log(
            f"the batch is {found} in all (per process {cfg.train_dataloader.batch_size}) where the recipe has "
            f"{wanted}; set train_dataloader.batch_size, or launch with other --num_processes",
            logger="current",
            level=WARNING,
        )


def _unwrap(model: nn.Module) -> nn.Module:
    """The segmenter itself, without what distributes it."""
    return model.get_submodule("module") if is_model_wrapper(model) else model
