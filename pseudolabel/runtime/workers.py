"""Worker processes for DenseCRF and scoring."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any


def open_pool(
    workers: int, preload: str, initialise: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool whose processes are forked from a clean server that has imported `preload` once.

    A fork of the caller would inherit its threads' locks and its CUDA context.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
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
