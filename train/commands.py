"""`pseudolabel train` and `pseudolabel test`: MMEngine's Runner, on the processes that Accelerate started."""

import os
from argparse import ArgumentParser
from importlib import resources
from logging import WARNING
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

import pseudolabel_train.register  # noqa: F401  (what configs name)
from pseudolabel.errors import UserError
from pseudolabel.runtime.watchdog import end_with_launcher
from pseudolabel_train.metric import CrfIoUMetric
from pseudolabel_train.report import ReportHook, total_batch
from pseudolabel_train.weights import PREFIX, check_initial, is_whole, load_trained, read_weights

FOLDER = "configs/deeplabv2"
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}


class ConfigError(UserError):
    """A config is missing or cannot be used."""


def train(config: str, work_dir: Path | None, resume: bool, init: str, options: list[str]) -> int:
    """Train by a config; see `pseudolabel train --help`.

    Raises:
        ConfigError: if the config or an option cannot be used.
        WeightsError: if the initial weights cannot.
    """
    cfg = prepare(config, work_dir, options)
    _require(cfg, config, "train_dataloader")
    if init:
        _choose_initial(cfg, init)
    if resume:
        cfg.resume = True
    for name in ("train_dataloader", "val_dataloader"):
        if cfg.get(name):
            _check_data(cfg[name].dataset)
    _choose_precision(cfg)
    runner = Runner.from_cfg(cfg)
    _compare_batch(cfg)
    _check_initial(runner)
    runner.train()
    return 0


def test(config: str, checkpoint: str, work_dir: Path | None, split: str, out: str, options: list[str]) -> int:
    """Score a checkpoint, or predict with it; see `pseudolabel test --help`.

    Raises:
        ConfigError: if the config or an option cannot be used, or nothing would come of the test.
        WeightsError: if the checkpoint is not of the config's model.
    """
    cfg = prepare(config, work_dir, options)
    _require(cfg, config, "test_dataloader")
    cfg.load_from, cfg.resume = None, False  # the weights are those of the command line
    if split:
        _choose_split(cfg, split)
    _choose_output(cfg, out)
    _check_data(cfg.test_dataloader.dataset)
    runner = Runner.from_cfg(cfg)
    training = load_trained(_unwrap(runner.model), checkpoint)
    next(hook for hook in runner.hooks if isinstance(hook, ReportHook)).training |= training
    runner.test()
    return 0


def prepare(config: str, work_dir: Path | None, options: list[str]) -> Config:
    """The config with options, work folder, our hook, and the processes that Accelerate started.

    Args:
        config: path of a config, or the name of one that ships.
        work_dir: folder of checkpoints and logs; None takes the config's, or work_dirs/CONFIG.
        options: `key=value` each, in MMEngine's notation.

    Raises:
        ConfigError: if one of them cannot be used.
    """
    end_with_launcher()
    path = find_config(config)
    changes = _parse_options(options)
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(changes)
    except Exception as error:  # a config is a program of the user's and may raise anything
        raise ConfigError(f"the config '{path}' cannot be used: {type(error).__name__}: {error}") from error
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs") / path.stem)
    hooks = cfg.get("custom_hooks") or []
    if not any(hook["type"] in (ReportHook, ReportHook.__name__) for hook in hooks):
        cfg.custom_hooks = [*hooks, {"type": ReportHook.__name__}]
    # Accelerate knows how to meet over NCCL or, without a GPU, over gloo; MMEngine takes the group as it finds it.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        cfg.launcher = "pytorch"
        if state.device.type == "cpu":  # MMEngine would hand the wrapper a GPU's number
            unused = cfg.get("find_unused_parameters", False)
            wrapper = {"device_ids": None, "broadcast_buffers": False, "find_unused_parameters": unused}
            cfg.setdefault("model_wrapper_cfg", {"type": "MMDistributedDataParallel", **wrapper})
    return cfg


def find_config(config: str) -> Path:
    """The file of a config by its path, or by the name of one that ships (`NAME` or `configs/deeplabv2/NAME.py`).

    Raises:
        ConfigError: if there is neither; the message lists those that ship.
    """
    if Path(config).is_file():
        return Path(config)
    shipped = Path(str(resources.files("pseudolabel_train.configs")))
    name = config.removeprefix(f"{FOLDER}/").removesuffix(".py")
    if "/" not in name and (shipped / f"{name}.py").is_file():
        return shipped / f"{name}.py"
    names = ", ".join(sorted(file.stem for file in shipped.glob("deeplabv2_*.py")))
    raise ConfigError(f"no config '{config}': give the path of one, or one of {names}")


def _require(cfg: Config, config: str, key: str) -> None:
    if not cfg.get(key):
        raise ConfigError(f"'{config}' has no {key}: it is a base for other configs; give one that inherits from it")


def _parse_options(options: list[str]) -> dict[str, Any]:
    without_value = [option for option in options if "=" not in option]
    if without_value:
        raise ConfigError(f"--cfg-options {without_value[0]}: write KEY=VALUE, such as train_dataloader.batch_size=4")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *options]).cfg_options if options else {}


def _choose_split(cfg: Config, split: str) -> None:
    """Test on another list of the data set; where no image of it has a mask, there is no ground truth to score with."""
    dataset = cfg.test_dataloader.dataset
    prefix = dataset.get("data_prefix") or {}
    if not dataset.get("ann_file") or not prefix.get("seg_map_path"):
        raise ConfigError(
            f"--split {split} needs a data set with an ann_file and a data_prefix.seg_map_path, not a "
            f"{dataset.type} without; name the data with --cfg-options test_dataloader.dataset..."
        )
    dataset.ann_file = str(Path(dataset.ann_file).with_name(f"{split}.txt"))
    _check_data(dataset)
    root = Path(dataset.get("data_root") or "")
    ids = (root / dataset.ann_file).read_text().split()
    lacking = [name for name in ids if not (root / prefix["seg_map_path"] / f"{name}.png").exists()]
    if len(lacking) == len(ids):
        dataset.pipeline = [step for step in dataset.pipeline if step["type"] != "LoadAnnotations"]
        for evaluator in _evaluators(cfg):
            evaluator.format_only = True
    elif lacking:
        raise ConfigError(
            f"{len(lacking)} of the {len(ids)} images of '{split}' have no mask in '{root / prefix['seg_map_path']}', "
            f"such as {lacking[0]}; name another folder with test_dataloader.dataset.data_prefix.seg_map_path=..."
        )


def _choose_output(cfg: Config, out: str) -> None:
    evaluators = _evaluators(cfg)
    writers = [one for one in evaluators if one.type in (CrfIoUMetric, CrfIoUMetric.__name__)]
    if out and not writers:
        raise ConfigError(f"--out {out}: palette PNGs are written by type='CrfIoUMetric' in test_evaluator; use that")
    for one in writers if out else []:
        one.output_dir = out
    if all(one.get("format_only") and not one.get("output_dir") for one in evaluators):
        raise ConfigError("there is no ground truth to score with; name a folder for the predictions with --out")


def _evaluators(cfg: Config) -> list[Any]:
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def _check_data(dataset: Config) -> None:
    """Name a missing list of images before MMSegmentation stops on it without a word."""
    root, name = Path(dataset.get("data_root") or ""), dataset.get("ann_file")
    if name and not (root / name).is_file():
        raise ConfigError(
            f"no image list '{root / name}': set the data set's folder with --cfg-options "
            "train_dataloader.dataset.data_root=... (val_, test_) or with the environment variable of the config"
        )


def _choose_initial(cfg: Config, place: str) -> None:
    """Let the backbone, or the whole segmenter where the weights are one's, start from `place`."""
    if cfg.get("load_from"):
        raise ConfigError(f"--init {place}: the config has load_from='{cfg.load_from}', which would win; take one away")
    if not cfg.model.get("backbone"):
        raise ConfigError(f"--init {place}: {cfg.model.type} has no backbone; set its own init_cfg in the config")
    init = {"type": "Pretrained", "checkpoint": f"{PREFIX}{place}"}
    for part in (cfg.model, cfg.model.backbone):
        part.pop("pretrained", None)
        part.pop("init_cfg", None)
    (cfg.model if is_whole(read_weights(place)) else cfg.model.backbone).init_cfg = init


def _check_initial(runner: Runner) -> None:
    for part in (runner.cfg.model, runner.cfg.model.get("backbone") or {}):
        init = part.get("init_cfg")
        place = init.get("checkpoint", "") if isinstance(init, dict) else ""
        if place.startswith(PREFIX):
            check_initial(_unwrap(runner.model), place.removeprefix(PREFIX))


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
