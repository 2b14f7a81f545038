"""MMEngine's config of a run: found, read, changed by options, and fitted to the processes that there are."""

from argparse import ArgumentParser
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

import pseudolabel_train.register  # noqa: F401  (what configs name)
from pseudolabel.runtime.watchdog import end_with_launcher
from pseudolabel_train.errors import ConfigError
from pseudolabel_train.report import ReportHook

FOLDER = "configs/deeplabv2"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
LOOPS = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)
# What PyTorch's loaders refuse where they have no workers.
OF_WORKERS = ("persistent_workers", "prefetch_factor", "timeout")


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
    cfg.work_dir = str(Path(work_dir or cfg.get("work_dir") or Path("work_dirs") / path.stem).expanduser())
    init_default_scope(cfg.get("default_scope") or "mmseg")
    hooks = cfg.get("custom_hooks") or []
    if not any(hook["type"] in (ReportHook, ReportHook.__name__) for hook in hooks):
        cfg.custom_hooks = [*hooks, {"type": ReportHook.__name__}]
    _go_without_workers(cfg)
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


def require(cfg: Config, config: str, kind: str) -> None:
    """Make sure that the config has all that `train` or `test` needs; MMEngine takes each loop whole or not at all.

    Raises:
        ConfigError: if a part is missing or None; the message names it.
    """
    loader = f"{kind}_dataloader"
    if cfg.get(loader) is None:
        raise ConfigError(f"'{config}' has no {loader}: it is a base for other configs; give one that inherits from it")
    for parts in LOOPS:
        lacking = [part for part in parts if cfg.get(part) is None]
        if 0 < len(lacking) < len(parts):
            there = next(part for part in parts if part not in lacking)
            raise ConfigError(
                f"'{config}' has {there}, but no {' and no '.join(lacking)}; add it, or set {there}=None to go without"
            )


def _parse_options(options: list[str]) -> dict[str, Any]:
    without_value = [option for option in options if "=" not in option]
    if without_value:
        raise ConfigError(f"`cfg_options` {without_value[0]}: write KEY=VALUE, such as train_dataloader.batch_size=4")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *options]).cfg_options if options else {}


def _go_without_workers(cfg: Config) -> None:
    """Let `num_workers=0` alone be enough; the settings of workers have no meaning then."""
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and loader.get("num_workers", 0) == 0:
            for setting in OF_WORKERS:
                loader.pop(setting, None)
