"""The CPU cores that this process may use, and how its threads wait."""

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Number of cores that CPU affinity and the quotas of control groups allow, at least 1.

    Args:
        groups: mount point of the control groups.
        membership: file that lists the process's groups.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return max(1, min([cores, *map(int, _quotas(groups, membership))]))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """Number of cores that each of the process's groups allows; groups without a limit are left out."""
    for folder in _folders(groups, membership):
        quota, period = _read(folder / "cpu.max"), ""  # version 2: both in one file
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        numbers = f"{quota} {period}".split()
        if len(numbers) == 2 and all(number.isdigit() for number in numbers) and int(numbers[1]):
            yield int(numbers[0]) / int(numbers[1])  # "max" or -1 where there is no limit


def _folders(groups: Path, membership: Path) -> Iterator[Path]:
    """Folders of the process's CPU groups and their parents, the root last.

    In a container, the mount holds only the container's group, and the path is the host's and may not exist.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [groups / controllers, groups / "cpu"] if controllers else [groups]
        for mount in mounts:
            own = mount / path.strip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def cores_per_process(local_count: int) -> int:
    """CPU cores for each of `local_count` processes on this machine, at least 1."""
    return max(1, usable_cores() // local_count)


def sleep_while_waiting() -> None:
    """Let waiting OpenMP threads sleep, here and in child processes, unless `OMP_WAIT_POLICY` is set.

    By default they spin, which slows other processes on the same cores. OpenMP reads the variable once, so call this
    before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
