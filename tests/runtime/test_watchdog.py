import os
import subprocess
import sys

import pytest

from pseudolabel.runtime.watchdog import ACCELERATE_VARIABLE, TORCHRUN_VARIABLE

NAMES = """
import threading
from pseudolabel.runtime.watchdog import end_with_launcher
end_with_launcher()
end_with_launcher()
print(sorted(thread.name for thread in threading.enumerate()))
"""
RANK = """
import time
from pseudolabel.runtime.watchdog import end_with_launcher
end_with_launcher()
print("started", flush=True)
time.sleep(60)
"""
ORPHAN = """
import os, sys, time
from pseudolabel.runtime.watchdog import end_with_launcher
parent = os.getppid()
print("started", flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
end_with_launcher()
time.sleep(60)
"""


def environment(*variables: str) -> dict[str, str]:
    """This process's environment with only these of the launchers' variables."""
    clean = {name: value for name, value in os.environ.items() if name not in (ACCELERATE_VARIABLE, TORCHRUN_VARIABLE)}
    return clean | dict.fromkeys(variables, "no")


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ((), "['MainThread']"),
        ((ACCELERATE_VARIABLE,), "['MainThread']"),  # from a shell: no `accelerate launch` has started this process
        ((ACCELERATE_VARIABLE, TORCHRUN_VARIABLE), "['MainThread', 'watchdog']"),
    ],
)
def test_only_launched_processes_are_watched(variables: tuple[str, ...], threads: str) -> None:
    import torch  # noqa: F401  (as every launcher has)

    command = [sys.executable, "-c", NAMES]
    found = subprocess.run(command, env=environment(*variables), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == threads


def test_a_single_process_of_accelerate_is_watched() -> None:
    script = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {NAMES!r}]).returncode)"
    command = [sys.executable, "-c", script, "accelerate", "launch"]
    found = subprocess.run(command, env=environment(ACCELERATE_VARIABLE), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['MainThread', 'watchdog']"


def test_a_process_without_its_launcher_ends() -> None:
    start = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {ORPHAN!r}], stdout=subprocess.PIPE).stdout.readline()
"""
    command = [sys.executable, "-c", start]
    # Its standard error closes only when the orphan ends.
    ended = subprocess.run(command, env=environment(TORCHRUN_VARIABLE), stderr=subprocess.PIPE, text=True, timeout=120)
    assert "the launcher is gone; stopping. Every finished shard is safe" in ended.stderr


@pytest.mark.slow
def test_a_shell_between_launcher_and_rank_does_not_matter() -> None:
    """The shell survives; the rank that it started ends."""
    launcher = f"""
import os, signal, subprocess, sys, torch
shell = ["sh", "-c", '"$0" -c "$1"; echo the rank ended with $? >&2', sys.executable, {RANK!r}]
process = subprocess.Popen(shell, stdout=subprocess.PIPE)
process.stdout.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", launcher]
    ended = subprocess.run(command, env=environment(TORCHRUN_VARIABLE), stderr=subprocess.PIPE, text=True, timeout=120)
    assert "the launcher is gone" in ended.stderr
    assert "the rank ended with 1" in ended.stderr
