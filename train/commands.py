"""`pseudolabel train` and `pseudolabel test`: MMEngine's Runner, on the processes that Accelerate started."""

from argparse import ArgumentParser
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from mmengine.config import Config, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

import pseudolabel_train.register  # noqa: F401  (what configs name)
from pseudolabel.errors import UserError
from pseudolabel_train.report import ReportHook
from pseudolabel_train.weights import PREFIX, check_initial, is_whole, load_trained, read_weights


class ConfigError(UserError):
    """A config is missing or cannot be used."""


def train(config: str, work_dir: Path | None, resume: bool, init: str, options: list[str]) -> int:
    """Train by a config; see `pseudolabel train --help`.

    Raises:
        ConfigError: if the config or an option cannot be used.
        WeightsError: if the initial weights cannot.
    """
    cfg = prepare(config, work_dir, options)
    if init:
        _choose_initial(cfg, init)
    cfg.resume = resume
    for loader in (cfg.train_dataloader, cfg.get("val_dataloader")):
        if loader:
            _check_data(loader.dataset)
    runner = Runner.from_cfg(cfg)
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
    if split:
        _choose_split(cfg, split)
    if out:
        cfg.test_evaluator.output_dir = out
    elif cfg.test_evaluator.get("format_only"):
        raise ConfigError(f"'{split}' has no ground truth to score with; name a folder for the predictions with --out")
    _check_data(cfg.test_dataloader.dataset)
    runner = Runner.from_cfg(cfg)
    load_trained(_unwrap(runner.model), checkpoint)
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
    path = find_config(config)
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(_parse_options(options))
    except (SyntaxError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        raise ConfigError(f"the config '{path}' cannot be used: {error!r}") from error
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
    """The file of a config by its path or, where there is no such file, by the name of one that ships.

    Raises:
        ConfigError: if there is neither; the message lists those that ship.
    """
    if Path(config).is_file():
        return Path(config)
    shipped = Path(str(resources.files("pseudolabel_train.configs")))
    path = shipped / f"{Path(config).stem}.py"
    if path.is_file() and path.stem != "__init__":
        return path
    names = sorted(file.stem for file in shipped.glob("*.py") if file.stem != "__init__")
    raise ConfigError(f"no config '{config}': give the path of one, or one of {', '.join(names)}")


def _parse_options(options: list[str]) -> dict[str, Any]:
    without_value = [option for option in options if "=" not in option]
    if without_value:
        raise ConfigError(f"--cfg-options {without_value[0]}: write KEY=VALUE, such as train_dataloader.batch_size=4")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *options]).cfg_options if options else {}


def _choose_split(cfg: Config, split: str) -> None:
    """Test on another list of the data set; where its first image has no mask, there is no ground truth."""
    dataset = cfg.test_dataloader.dataset
    dataset.ann_file = str(Path(dataset.ann_file).with_name(f"{split}.txt"))
    _check_data(dataset)
    root = Path(dataset.get("data_root") or "")
    first = (root / dataset.ann_file).read_text().split()[0]
    if not (root / dataset.data_prefix["seg_map_path"] / f"{first}.png").exists():
        dataset.pipeline = [step for step in dataset.pipeline if step["type"] != "LoadAnnotations"]
        cfg.test_evaluator.format_only = True


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
    init = {"type": "Pretrained", "checkpoint": f"{PREFIX}{place}"}
    if is_whole(read_weights(place)):
        cfg.model.init_cfg = init
    else:
        cfg.model.backbone.init_cfg = init


def _check_initial(runner: Runner) -> None:
    for part in (runner.cfg.model, runner.cfg.model.backbone):
        place = (part.get("init_cfg") or {}).get("checkpoint", "")
        if place.startswith(PREFIX):
            check_initial(_unwrap(runner.model), place.removeprefix(PREFIX))


def _unwrap(model: nn.Module) -> nn.Module:
    """The segmenter itself, without what distributes it."""
    return model.get_submodule("module") if is_model_wrapper(model) else model
