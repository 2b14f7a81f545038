"""Worker processes for what runs on the CPU: DenseCRF and scoring."""

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

    Forking the caller instead would carry its threads' locks and its CUDA context along.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(workers, context, _start, (initialise, arguments))


def _start(initialise: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch  # each process has one core; the main process need not have imported torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to all processes; the owner ends and this one with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initialise is not None:
        initialise(*arguments)


def _end_with_parent() -> None:
    """A pool whose owner is killed would wait for work for ever."""
    owner = parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)
