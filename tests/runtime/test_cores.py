import os
import subprocess
import sys
from pathlib import Path

import pytest

from pseudolabel.runtime.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("quota", "cores"), [("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("", 16)]
)
def test_cgroup_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "fs/cpu.max", f"{quota}\n")
    assert usable_cores(tmp_path / "fs", tmp_path / "cgroup") == cores


def test_nested_groups(tmp_path: Path) -> None:
    """As with SLURM or systemd: the smallest quota of all parent groups applies."""
    write(tmp_path / "cgroup", "0::/system.slice/job_7/step_0\n")
    write(tmp_path / "fs/system.slice/cpu.max", "max 100000\n")
    write(tmp_path / "fs/system.slice/job_7/cpu.max", "300000 100000\n")
    write(tmp_path / "fs/system.slice/job_7/step_0/cpu.max", "800000 100000\n")
    write(tmp_path / "fs/system.slice/other/cpu.max", "100000 100000\n")
    assert usable_cores(tmp_path / "fs", tmp_path / "cgroup") == 3


@pytest.mark.parametrize(("quota", "cores"), [("600000", 6), ("-1", 16)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_cgroup_version_1(tmp_path: Path, mount: str, quota: str, cores: int) -> None:
    """The path is the host's, which does not exist in the container."""
    write(tmp_path / "cgroup", "9:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/docker/ab12\n")
    write(tmp_path / f"fs/{mount}/cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path / f"fs/{mount}/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "fs/memory/cpu.cfs_quota_us", "100000\n")
    assert usable_cores(tmp_path / "fs", tmp_path / "cgroup") == cores


def test_cpu_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cores(tmp_path, tmp_path / "none") == 2
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "cpu.max", "100000 100000\n")
    assert usable_cores(tmp_path, tmp_path / "cgroup") == 1


def test_this_machine() -> None:
    assert 1 <= usable_cores() <= 16


@pytest.mark.parametrize(("chosen", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_in_every_command(chosen: dict[str, str], expected: str) -> None:
    """The policy is set before torch, which loads OpenMP."""
    script = """
import os, sys, pseudolabel.cli
assert "torch" not in sys.modules
try:
    pseudolabel.cli.main(["--help"])
finally:
    print(os.environ["OMP_WAIT_POLICY"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | chosen
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == expected
