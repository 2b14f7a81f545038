"""The package's commands in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from pseudolabel.io.shipped import NAME

LAUNCHER = "-m accelerate.commands.launch --multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no"
# One thread per process, whatever the number of processes: the sums, and so the bytes, come out alike.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def launch(ranks: int) -> str:
    """Python's options that start a command on so many processes."""
    return f"{LAUNCHER} --num_processes {ranks} --main_process_port 0" if ranks > 1 else ""


def run(arguments: list[str], environment: Mapping[str, str]) -> None:
    """`pseudolabel ARGUMENTS` to its end.

    Raises:
        RuntimeError: with what it printed, if its status is not 0.
    """
    command = [sys.executable, "-m", "pseudolabel", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def run_on_shapes(name: str, model: str, out: str, device: str, threads: int, options: Mapping[str, object]) -> None:
    """`pseudolabel NAME` on Shapes' classes, with the settings chosen for Shapes or the defaults."""
    settings = ["--config", NAME] if model == NAME else ["--model.name", model, "--vocabulary", NAME]
    flags = [text for option, value in options.items() for text in (f"--{option}", json.dumps(value).strip('"'))]
    environment = {"OMP_NUM_THREADS": str(threads)} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    run([name, *settings, *flags, "--out", out], environment)
