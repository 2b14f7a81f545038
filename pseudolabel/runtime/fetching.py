"""Results from the device, one behind the work that it is given."""

from collections.abc import Iterable, Iterator

import torch


def fetch(results: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Bring tensors to the CPU, each one only after the work for the next one is queued.

    So a CUDA device has always something to do: Python waits for a result, never the device for Python.
    """
    before: _Copy | None = None
    for result in results:
        copy = _Copy(result)
        if before is not None:
            yield before.wait()
        before = copy
    if before is not None:
        yield before.wait()


class _Copy:
    """A tensor on its way to the CPU."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor.to("cpu", non_blocking=tensor.device.type == "cuda")  # into pinned memory
        self._done: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._done = torch.cuda.Event(blocking=True)  # waiting sleeps, and leaves its core to the readers
            self._done.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        if self._done is not None:
            self._done.synchronize()
        return self._tensor
