"""`make demo`: the main job on Shapes with the small model that ships with the package, in a few minutes on a CPU.

Draws unseen images, labels them on two processes, refines the maps with DenseCRF, scores both against the exact
masks, and leaves shards, metrics and a contact sheet in runs/demo.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

OUT = Path("runs/demo")
IMAGES = 200
SEED = 20231  # neither the shipped model nor its settings have seen images of this seed
EXPERIMENT = ["--config", "configs/pipeline/shapes.yaml", "--source.path", str(OUT / "data"), "--out", str(OUT)]


def main() -> None:
    started = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    run("shapes", "--out", str(OUT / "data"), "--train", "0", "--val", str(IMAGES), "--seed", str(SEED))
    run("cams", *EXPERIMENT, launcher=launcher())
    run("refine", *EXPERIMENT)
    run("evaluate", "cams", *EXPERIMENT)
    run("evaluate", "masks", *EXPERIMENT)
    run("sheet", *EXPERIMENT, "--title", "Shapes, labelled from image-level labels alone")
    metrics = write_metrics(time.perf_counter() - started)
    print(farewell(metrics))


def launcher() -> list[str]:
    """Two processes on two GPUs or, without any, on the CPU; one process on a single accelerator."""
    python = [sys.executable, "-m", "accelerate.commands.launch"]
    if torch.accelerator.is_available() and torch.accelerator.device_count() < 2:
        return [*python, "--num_processes", "1"]
    return [
        *python,
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]


def run(command: str, *arguments: str, launcher: list[str] | None = None) -> None:
    line = [*(launcher or [sys.executable]), "-m", "pseudolabel", command, *arguments]
    print(f"\n$ {shlex.join(['python', *line[1:]])}", flush=True)
    finished = subprocess.run(line)
    if finished.returncode:
        sys.exit(f"demo: '{command}' ended with status {finished.returncode}; its message is above")


def write_metrics(seconds: float) -> dict:
    path = OUT / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics |= {
        "cam_miou": metrics["cams"]["oracle"]["miou"],
        "cam_miou_fixed_threshold": metrics["cams"]["fixed"]["miou"],
        "mask_miou": metrics["masks"]["miou"],
        "images": metrics["masks"]["images"],
        "seconds": round(seconds, 1),
    }
    path.write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def farewell(metrics: dict) -> str:
    scores = f"CAM mIoU {100 * metrics['cam_miou']:.1f}, pseudo-mask mIoU {100 * metrics['mask_miou']:.1f}"
    return f"""
{scores} on {metrics["images"]} unseen images, {metrics["seconds"]:.0f} s in all.
Look at {OUT}/sheet.png; the shards are in {OUT}/cams and {OUT}/masks, the figures in {OUT}/metrics.json.

The small model of this demo knows only Shapes. For your own images, one folder per class, with Stable Diffusion:
  accelerate launch -m pseudolabel generate --source.kind folder --source.path IMAGES \\
      --vocabulary "dog, cat" --out runs/mine"""


if __name__ == "__main__":
    main()
