"""How many processor cores this process may use, and how its threads wait for one another."""

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores by the process's affinity and by the quotas of its control groups, at least one.

    Args:
        groups: where the control groups are mounted.
        membership: the file that tells which ones the process is in.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return max(1, min([cores, *map(int, _quotas(groups, membership))]))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """Cores' worth of time that each control group above the process allows; those without a limit are left out."""
    for folder in _folders(groups, membership):
        quota, period = _read(folder / "cpu.max"), ""  # version 2: both in one file
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        numbers = f"{quota} {period}".split()
        if len(numbers) == 2 and all(number.isdigit() for number in numbers) and int(numbers[1]):
            yield int(numbers[0]) / int(numbers[1])  # "max" or -1 where there is no limit


def _folders(groups: Path, membership: Path) -> Iterator[Path]:
    """Folders of the process's groups for processor time and of those around them, the outermost last.

    In a container the mount shows its own group alone, and the path, which is the host's, may lead nowhere.
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


def share_of_cores(local_count: int) -> int:
    """Processor cores for one of `local_count` processes on this machine, at least one."""
    return max(1, usable_cores() // local_count)


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep while they wait, here and in child processes, unless the environment says otherwise.

    By default they spin, which takes the core from the thread that they wait for where processes share cores. OpenMP
    reads `OMP_WAIT_POLICY` once, so this comes before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
