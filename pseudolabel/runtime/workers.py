"""Worker processes for DenseCRF and scoring."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any

# The modules of the functions that pools run. A process has one server for all its pools, and what the server has not
# imported before the first of them, each worker of the others would have to: a second, for scores after masks.
PRELOADED = ["pseudolabel.stages.refiners", "pseudolabel.stages.evaluate"]


def open_pool(
    workers: int, initialise: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool whose processes are forked from a clean server that has imported what they run.

    A fork of the caller would inherit its threads' locks and its CUDA context.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return ProcessPoolExecutor(workers, context, _start, (initialise, arguments))


def _start(initialise: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch  # one core per process; here, as the main process need not import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the owner ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initialise is not None:
        initialise(*arguments)


def _end_with_parent() -> None:
    """End this worker when its owner is killed; it would wait for work otherwise."""
    owner = parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)
