"""Small file systems for tests of full and read-only disks."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_tmpfs(path: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs on a folder while the context lasts; skips the test where that is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = _run("mount", "-t", "tmpfs", "-o", options, "none", str(path))
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        _run("umount", "--lazy", str(path)).check_returncode()


def remount(path: Path, options: str) -> None:
    _run("mount", "-o", f"remount,{options}", str(path)).check_returncode()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
