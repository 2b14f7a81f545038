"""`make demo`: the whole job on Shapes with a small model that ships with the package, in minutes on a CPU.

Draws images, labels their training split from image-level labels on two processes, refines the maps with DenseCRF and
scores both against the exact masks. Then trains one segmenter on the pseudo-masks and one on the exact masks, and
scores both on unseen images. Shards, checkpoints, metrics and a contact sheet stay in the output folder.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import clear_folder
from pseudolabel.io.ownership import write_own

TRAIN, VAL = 300, 200
SEED = 20231  # neither the shipped model nor its settings have seen images of this seed
PROCESSES = 2
PIPELINE = "configs/pipeline/shapes_standard.yaml"
CONFIGS = [f"configs/deeplabv2/deeplabv2_r18_shapes{kind}.py" for kind in ("", "_full")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the results, overwritten")
    parser.add_argument("--seed", type=int, default=SEED, help="of the images and of training")
    arguments = parser.parse_args()
    metrics = demonstrate(arguments.out, arguments.seed)
    print(farewell(metrics, arguments.out))


def demonstrate(out: Path, seed: int) -> dict:
    """Run the whole job and return what it wrote to OUT/metrics.json."""
    started = time.perf_counter()
    try:
        clear_folder(out, "demo.py")
    except OutputError as error:
        sys.exit(f"demo: {error}")
    experiment = ["--config", PIPELINE, "--source.path", str(out / "data")]
    experiment += ["--source.split", "train", "--out", str(out)]
    size = ["--train", str(TRAIN), "--val", str(VAL), "--seed", str(seed)]
    run("shapes", "--out", str(out / "data"), "--difficulty", "standard", *size)
    run("cams", *experiment, launcher=launcher())
    run("refine", "--config", PIPELINE, "--out", str(out))
    run("evaluate", "cams", *experiment)
    run("evaluate", "masks", *experiment)
    run("sheet", *experiment, "--title", "Shapes, labelled from image-level labels alone")
    run("report", str(out), *experiment[:-2])
    options = ["--cfg-options", f"randomness.seed={seed}", f"val_dataloader.dataset.data_root={out / 'data'}"]
    weak, full = CONFIGS
    run("train", weak, "--work-dir", str(out / "train"), *options, f"train_dataloader.dataset.shards={out / 'masks'}")
    options += [f"train_dataloader.dataset.data_root={out / 'data'}"]
    run("train", full, "--work-dir", str(out / "train-full-supervision"), *options)
    return write_metrics(out, time.perf_counter() - started)


def launcher() -> list[str]:
    """Two processes on two GPUs or, without any, on the CPU; one process on a single accelerator."""
    python = [sys.executable, "-m", "accelerate.commands.launch"]
    if torch.accelerator.is_available() and torch.accelerator.device_count() < PROCESSES:
        return [*python, "--num_processes", "1"]
    options = f"--multi_gpu --num_processes {PROCESSES} --num_machines 1 --mixed_precision no --dynamo_backend no"
    return [*python, *options.split()]


def run(command: str, *arguments: str, launcher: list[str] | None = None) -> None:
    line = [*(launcher or [sys.executable]), "-m", "pseudolabel", command, *arguments]
    print(f"\n$ {shlex.join(['python', *line[1:]])}", flush=True)
    finished = subprocess.run(line)
    if finished.returncode:
        sys.exit(f"demo: '{command}' ended with status {finished.returncode}; its message is above")


def write_metrics(out: Path, seconds: float) -> dict:
    path = out / "metrics.json"
    metrics = json.loads(path.read_text())
    trained, full = (
        json.loads((out / name / "metrics.json").read_text())["val"] for name in ("train", "train-full-supervision")
    )
    metrics |= {
        "cam_miou": metrics["cams"]["oracle"]["miou"],
        "cam_miou_fixed_threshold": metrics["cams"]["fixed"]["miou"],
        "mask_miou": metrics["masks"]["miou"],
        "images": metrics["masks"]["images"],
        "val_images": trained["images"],
        "val_miou": trained["mIoU"] / 100,
        "val_miou_full_supervision": full["mIoU"] / 100,
        "percent_of_full_supervision": 100 * trained["mIoU"] / full["mIoU"],
        "seconds": round(seconds, 1),
    }
    write_own(str(path), (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics


def farewell(metrics: dict, out: Path) -> str:
    miou = {name: f"{100 * value:.1f}" for name, value in metrics.items() if "miou" in name}
    return f"""
Labelled from image-level labels: CAM mIoU {miou["cam_miou"]}, pseudo-mask mIoU {miou["mask_miou"]} \
on {metrics["images"]} images.
Trained on these pseudo-masks:    mIoU {miou["val_miou"]} on {metrics["val_images"]} unseen images,
  {metrics["percent_of_full_supervision"]:.1f} % of the {miou["val_miou_full_supervision"]} \
that the same training reaches on exact masks. {metrics["seconds"]:.0f} s in all.
Look at {out}/report.html in a browser, and at {out}/sheet.png. The shards are in {out}/masks, the segmenter in
{out}/train, the figures in {out}/metrics.json.

The model of this demo is trained on Shapes only. For your own images, one folder per class, with Stable Diffusion:
  accelerate launch -m pseudolabel generate --source.kind folder --source.path IMAGES \\
      --vocabulary "dog, cat" --out runs/mine"""


if __name__ == "__main__":
    main()
