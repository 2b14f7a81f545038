"""Copies of results from the device to the CPU, overlapped with the device's work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def fetch(results: Iterable[tuple[T, torch.Tensor]]) -> Iterator[tuple[T, torch.Tensor]]:
    """Copy the tensors of (item, tensor) pairs to the CPU; each is returned after the next one's work is queued.

    A CUDA device is therefore not idle while Python waits for a result.
    """
    before: tuple[T, _Copy] | None = None
    for item, result in results:
        copy = _Copy(result)
        if before is not None:
            yield before[0], before[1].wait()
        before = item, copy
    if before is not None:
        yield before[0], before[1].wait()


class _Copy:
    """A tensor that is being copied to the CPU."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor.to("cpu", non_blocking=tensor.device.type == "cuda")  # into pinned memory
        self._done: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._done = torch.cuda.Event(blocking=True)  # a wait that sleeps leaves the core to the readers
            self._done.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        if self._done is not None:
            self._done.synchronize()
        return self._tensor
