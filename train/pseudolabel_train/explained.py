"""What MMEngine and PyTorch raise for reasons of the user's, in one message each."""

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
    except (UserError, torch.OutOfMemoryError, OSError):  # those of the system are told by `explained`
        raise
    except Exception as error:  # any class that a config names may raise anything
        raise ConfigError(f"'{cfg.filename}' cannot be built: {type(error).__name__}: {error}") from error


@contextmanager
def explained(cfg: Config, loader: str) -> Iterator[None]:
    """Turn errors of the system and of loaders' workers into errors that end in one message.

    Args:
        cfg: of the run.
        loader: the one whose batch size and workers decide, such as `train_dataloader`.

    Raises:
        ConfigError: in place of running out of memory, errors of files, and workers that were killed.
    """
    try:
        yield
    except UserError as error:
        raise _own(error) from error
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"out of memory with {loader}.batch_size={cfg[loader].batch_size}; give a smaller one with `cfg_options`, "
            f"and accumulate with optim_wrapper.accumulative_counts ({error})"
        ) from error
    except BrokenExecutor as error:
        raise ConfigError(
            "a worker process of the CRF was killed, most likely for its memory; give fewer with `cfg_options` "
            "test_evaluator.workers=..."
        ) from error
    except OSError as error:
        raise ConfigError(f"{error}; is it `work_dir` '{cfg.work_dir}', or a file of {loader}.dataset?") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"'{cfg.filename}' with `cfg_options` has a setting that there is not: {error}") from error
    except RuntimeError as error:
        if _WORKER not in str(error) or "Traceback" in str(error):
            raise
        raise ConfigError(
            f"{error}; its memory may have run out: give fewer workers with `cfg_options` {loader}.num_workers=..., 0 "
            "for none"
        ) from error


def _own(error: UserError) -> UserError:
    """An error as it was raised; PyTorch hands on those of workers with their traceback as text."""
    text = str(error)
    if not text.startswith("Caught ") or _WORKER not in text:
        return error
    kind = type(error)
    return kind(text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip())
