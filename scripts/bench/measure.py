"""What benchmarks measure with: seconds by part, the peak of memory, the machine's own rate."""

import ctypes
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

MATMUL_SIDE = {"cuda": 8192, "cpu": 2048}
MATMUL_ROUNDS = 10
LIBRARIES = ("torch", "diffusers", "transformers", "onedl-mmcv", "onedl-mmengine")


def in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    """The function's result in a fresh process, where memory that others used does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Clock:
    """Seconds by part; the time of an inner part is not the outer part's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._name: str | None = None
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        outer = self._name
        self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(outer)

    def _turn_to(self, name: str | None) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now


class Peak:
    """The largest memory since this object was made, above what was held then.

    On a CPU that is the resident set of the process: measure in a process of its own. Where Linux does not let the
    high-water mark be reset, or there is no Linux, loading counts as well, and a smaller peak after it shows as 0.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            _return_free_memory()
            self.can_reset = _reset_high_water_mark()
            self._before = _status("VmRSS") if self.can_reset else _max_resident()

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._before
        return (_status("VmHWM") if self.can_reset else _max_resident()) - self._before


def _return_free_memory() -> None:
    """Let the allocator's free pages not count as held."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _max_resident() -> int:
    """Of the process so far; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large square matrix product, the best of several: what this machine can do at most."""
    side = MATMUL_SIDE.get(device.type, MATMUL_SIDE["cpu"])
    one, other = (torch.randn(side, side, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(MATMUL_ROUNDS):
        synchronize(device)
        started = time.perf_counter()
        one @ other
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the libraries that are installed."""
    installed = {name: metadata.version(name) for name in LIBRARIES if any(metadata.distributions(name=name))}
    return {"python": platform.python_version(), **installed}
