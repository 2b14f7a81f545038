"""`pseudolabel train` and `pseudolabel test`: MMEngine's Runner on the processes that Accelerate started."""

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
from pseudolabel.runtime.precision import MIXED_PRECISIONS
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


def train(config: str, work_dir: Path | None, resume: bool, init: str, options: list[str]) -> int:
    """Train by a config; see `pseudolabel train --help`.

    Raises:
        ConfigError: if the config or an option cannot be used, or model and data do not fit.
        WeightsError: if the initial weights, or the checkpoint to resume from, cannot be used.
        UserError: if the data cannot be used.
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
        ConfigError: if the config or an option cannot be used, model and data do not fit, or there would be no result.
        WeightsError: if the checkpoint cannot be read or belongs to another model than the config's.
        UserError: if the data cannot be used.
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
    """Log which images have no prediction, with reasons; the exit status, which is 0 on all ranks but the first."""
    if not failed or not is_main_process():
        return 0
    shown = "; ".join(f"'{key}': {reason}" for key, reason in list(failed.items())[:FAILURES_SHOWN])
    more = f"; and {len(failed) - FAILURES_SHOWN} more, see metrics.json" if len(failed) > FAILURES_SHOWN else ""
    message = f"test: {len(failed)} of {images} images failed: {shown}{more}"
    print_log(message, logger="current", level=WARNING)
    return FAILED_SAMPLES_EXIT


def _check_data(cfg: Config) -> None:
    """Open and check the data of training and validation, and compare their classes with each other and the model."""
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
    """Test on another list of the data set; if none of its images has a mask, predict without scoring."""
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
        raise ConfigError("without ground truth there is nothing to score; set `out` to a folder for the predictions")


def _evaluators(cfg: Config) -> list[Any]:
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def _choose_precision(cfg: Config) -> None:
    """Use the precision of `accelerate launch --mixed_precision`, unless the config sets an optimizer wrapper."""
    precision = MIXED_PRECISIONS.get(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"))
    if precision is None or cfg.optim_wrapper.type != "OptimWrapper":
        return
    name = str(precision).removeprefix("torch.")
    if not torch.cuda.is_available():
        raise ConfigError(f"MMEngine trains in {name} only on a GPU; launch with --mixed_precision no")
    cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype=name)


def _compare_batch(cfg: Config) -> None:
    """Warn if the total batch differs from the config's, for example 80 instead of 10 on 8 GPUs."""
    wanted = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    found = total_batch(cfg)
    if wanted and found != wanted:
        print_log(
            f"the total batch is {found} ({cfg.train_dataloader.batch_size} per process), the config is meant for "
            f"{wanted}; set train_dataloader.batch_size, or launch with another --num_processes",
            logger="current",
            level=WARNING,
        )


def _unwrap(model: nn.Module) -> nn.Module:
    """The segmenter itself, without the wrapper for distributed training."""
    return model.get_submodule("module") if is_model_wrapper(model) else model
