"""Turn errors of MMEngine and PyTorch that the user can fix into one clear message each."""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from pseudolabel.errors import UserError
from pseudolabel_train.errors import ConfigError

_WORKER = "DataLoader worker"


def build_runner(cfg: Config) -> Runner:
    """MMEngine's Runner of a config.

    Raises:
        ConfigError: if the model, a hook, or another part cannot be built as the config says.
    """
    try:
        return Runner.from_cfg(cfg)
    except (UserError, torch.OutOfMemoryError, OSError):  # `explained` handles errors of the system
        raise
    except Exception as error:  # any class that a config names may raise anything
        raise ConfigError(f"'{cfg.filename}' cannot be built: {type(error).__name__}: {error}") from error


@contextmanager
def explained(cfg: Config, loader: str) -> Iterator[None]:
    """Turn errors of the system and of loaders' workers into `ConfigError`s.

    Args:
        cfg: of the run.
        loader: the loader in use, such as `train_dataloader`; messages name its settings.

    Raises:
        ConfigError: if memory runs out, a file cannot be used, or a worker is killed.
    """
    try:
        yield
    except UserError as error:
        raise _own(error) from error
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"out of memory with {loader}.batch_size={cfg[loader].batch_size}; set a smaller one with `cfg_options`, "
            f"and accumulate with optim_wrapper.accumulative_counts ({error})"
        ) from error
    except BrokenExecutor as error:
        raise ConfigError(
            "a worker process of the CRF was killed, most likely because memory ran out; set fewer with `cfg_options` "
            "test_evaluator.workers=..."
        ) from error
    except OSError as error:
        raise ConfigError(f"{error}; check `work_dir` '{cfg.work_dir}' and the files of {loader}.dataset") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"'{cfg.filename}' or `cfg_options` has an unknown setting: {error}") from error
    except RuntimeError as error:
        if _WORKER not in str(error) or "Traceback" in str(error):
            raise
        raise ConfigError(
            f"{error}; its memory may have run out; set fewer workers with `cfg_options` {loader}.num_workers=... (0 "
            "for none)"
        ) from error


def _own(error: UserError) -> UserError:
    """The error with its original message; PyTorch adds a worker's traceback to it."""
    text = str(error)
    if not text.startswith("Caught ") or _WORKER not in text:
        return error
    kind = type(error)
    return kind(text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip())
