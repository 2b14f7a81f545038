"""Seconds and memory of DiffSegmenter: ours against the released way, on the architecture of Stable Diffusion v1.5.

    python scripts/bench/cams.py                                    # both ways, one image, 2 classes, 4 timesteps
    python scripts/bench/cams.py --model shapes --json cams.json    # a quick look with the shipped model
    python scripts/bench/cams.py --device cuda --dtype bfloat16 --batches 4,8,16,32    # ours alone, images per second

Weights are random: neither time nor memory depends on them, and both ways are held to the same maps. Each way runs in
a process of its own. Memory is the peak above what the loaded weights take.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from meter import Clock, Peak, in_own_process, machine, matmul_rate, versions, whole_numbers
from report_file import free_file, write_report
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from ways import ours, released

from pseudolabel.config import DiffSegmenterConfig, ModelConfig, WorkConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import stable_diffusion_v15

PARTS = {"vae": "VAE", "text": "text", "unet": "U-Net", "propagation": "propagation"}
NAMES = [entry.prompt for entry in load_vocabulary("shapes").classes]
ROUNDS = 3  # U-Net batches of one size in a throughput run
MIB = 2**20
WIDTH = 110  # of the tables, also where the output is no terminal


@dataclass(frozen=True)
class Task:
    """What both ways do; `model` is `shapes` or a checkpoint folder."""

    model: str
    images: int
    classes: int
    timesteps: list[int]
    image_size: int
    dtype: Literal["float32", "bfloat16", "float16"]
    device: str
    threads: int
    batch: int
    repeat: int
    seed: int


def main() -> None:
    args = parse_arguments()
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "batches")}
    with TemporaryDirectory() as folder:
        weights = str(stable_diffusion_v15(Path(folder))) if args.model == "sd15" else args.model
        task = Task(**settings | {"model": weights, "images": 1})
        report = throughput(task, args.batches) if args.batches else comparison(task)
    report["settings"] = settings
    if args.json:
        write_report(args.json, report)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd15", help="sd15, shapes, or a checkpoint's folder")
    parser.add_argument("--classes", type=int, choices=range(1, len(NAMES) + 1), default=2, help="classes per image")
    parser.add_argument("--timesteps", type=whole_numbers, default=[1, 50, 100, 150], help="with commas")
    parser.add_argument("--image-size", type=int, default=0, help="side in pixels; 0 is the model's own")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=WorkConfig.batch, help="triples per U-Net forward of ours")
    parser.add_argument("--batches", type=whole_numbers, default=[], help="with commas: images/s of ours at each")
    parser.add_argument("--repeat", type=int, default=1, help="runs, of which the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=free_file, help="file for the figures")
    return parser.parse_args()


# Both ways, side by side.


def comparison(task: Task) -> dict[str, object]:
    old, new = (in_own_process(measure, task, way) for way in ("released", "ours"))
    difference = float(np.abs(old["maps"] - new["maps"]).max())
    report = {
        "speedup": old["seconds"] / new["seconds"],
        "memory_ratio": old["peak_bytes"] / max(1, new["peak_bytes"]),
        "max_abs_diff": difference,
        "map_range": [float(old["maps"].min()), float(old["maps"].max())],
        "released": figures(old),
        "ours": figures(new),
        "machine": new["machine"],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    Console(width=WIDTH).print(comparison_table(task, old, new, difference))
    return report


def figures(result: dict) -> dict[str, object]:
    return {name: result[name] for name in ("seconds", "cpu_seconds", "parts", "peak_bytes")}


def measure(task: Task, way: str) -> dict:
    """The fastest of the runs with its maps, and the mean CPU time and the peak over all runs.

    Other work on the machine stretches the seconds, and CPU seconds less so.
    """
    model, device = prepare(task)
    if device.type == "cuda":  # the first run on a GPU also sets up its libraries
        run(replace(task, timesteps=task.timesteps[:1], classes=1), model, way)
    peak = Peak(device)
    cpu_seconds = time.process_time()
    seconds, parts, maps = fastest(task, model, way)
    cpu_seconds = (time.process_time() - cpu_seconds) / task.repeat
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "parts": parts,
        "peak_bytes": peak.bytes(),
        "maps": maps.cpu().numpy(),
        "machine": machine(device),
    }


def fastest(task: Task, model: DiffusionModel, way: str) -> tuple[float, dict[str, float], torch.Tensor]:
    return min((run(task, model, way) for _ in range(task.repeat)), key=lambda result: result[0])


def prepare(task: Task) -> tuple[DiffusionModel, torch.device]:
    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    model = load_model(ModelConfig(name=task.model, dtype=task.dtype, image_size=task.image_size), device)
    for part in (model.vae, model.unet, model.text_encoder):
        for weight in part.parameters():
            weight.sum()  # weights that are still in the file count as memory of the model, not of the run
    return model, device


def run(task: Task, model: DiffusionModel, way: str) -> tuple[float, dict[str, float], torch.Tensor]:
    """Seconds in all and by part, and the maps."""
    config = DiffSegmenterConfig(timesteps=task.timesteps)
    images = [draw_scene(np.random.default_rng([task.seed, number])).image for number in range(task.images)]
    generator = torch.Generator().manual_seed(task.seed)
    noise = torch.randn(task.images, 1, *model.latent_shape, generator=generator)
    clock, names = Clock(model.device), NAMES[: task.classes]
    started = time.perf_counter()
    if way == "ours":
        maps = ours(model, config, images, names, noise, clock, task.batch)
    else:
        maps = released(model, config, images, names, noise, clock)
    return time.perf_counter() - started, clock.seconds, maps


def comparison_table(task: Task, old: dict, new: dict, difference: float) -> Table:
    shape = f"1 image, {task.classes} classes, {len(task.timesteps)} timesteps"
    table = Table(
        title=f"{shape}, {task.dtype} on {task.device}", caption=f"largest difference between the maps {difference:.1e}"
    )
    table.add_column("")
    for column in ("released way", "ours", "ratio"):
        table.add_column(column, justify="right")
    rows = [(f"{title}, s", old["parts"][part], new["parts"][part]) for part, title in PARTS.items()]
    rows.append(("all, s", old["seconds"], new["seconds"]))
    rows.append(("all, CPU s", old["cpu_seconds"], new["cpu_seconds"]))
    rows.append(("peak above the weights, MiB", old["peak_bytes"] / MIB, new["peak_bytes"] / MIB))
    for title, before, after in rows:
        table.add_row(title, f"{before:.3g}", f"{after:.3g}", f"{before / after:.2f}" if after else "")
    return table


# Ours alone, at several batch sizes.


def throughput(task: Task, batches: list[int]) -> dict[str, object]:
    report = in_own_process(measure_throughput, task, batches)
    Console(width=WIDTH).print(throughput_table(task, report))
    return report


def measure_throughput(task: Task, batches: list[int]) -> dict:
    model, device = prepare(task)
    unet_flop, vae_flop = count_flop(model)
    return {
        "matmul_flops": matmul_rate(device, model.dtype),
        "unet_flop": unet_flop,
        "vae_flop": vae_flop,
        "batches": [one_batch_size(replace(task, batch=batch), model, unet_flop, vae_flop) for batch in batches],
        "machine": machine(device),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def one_batch_size(task: Task, model: DiffusionModel, unet_flop: int, vae_flop: int) -> dict:
    pairs = max(1, task.batch // len(task.timesteps))
    task = replace(task, images=images_for(pairs, task.classes))
    peak = Peak(model.device)
    try:
        run(replace(task, images=math.ceil(pairs / task.classes)), model, "ours")
        seconds, parts, _ = fastest(task, model, "ours")
    except torch.OutOfMemoryError:
        return {"batch": task.batch, "out_of_memory": True}
    flop = task.images * (vae_flop + task.classes * len(task.timesteps) * unet_flop)
    return {
        "batch": task.batch,
        "images": task.images,
        "images_per_second": task.images / seconds,
        "share": {part: parts[part] / seconds for part in PARTS},
        "flops": flop / seconds,
        "peak_bytes": peak.bytes(),
    }


def images_for(pairs: int, classes: int) -> int:
    """As many images as fill several U-Net batches exactly."""
    step = pairs // math.gcd(pairs, classes)
    return step * math.ceil(ROUNDS * pairs / (classes * step))


def count_flop(model: DiffusionModel) -> tuple[int, int]:
    """Of a whole U-Net forward and a VAE encoding, counted on shapes alone; ours leaves out the U-Net's last part."""
    width, (channels, side, _) = model.unet.config.cross_attention_dim, model.latent_shape
    with torch.device("meta"), torch.no_grad():
        unet, vae = UNet2DConditionModel.from_config(model.unet.config), AutoencoderKL.from_config(model.vae.config)
        with FlopCounterMode(display=False) as unet_count:
            unet(torch.zeros(1, channels, side, side), torch.zeros(1), torch.zeros(1, 77, width))
        with FlopCounterMode(display=False) as vae_count:
            vae.encode(torch.zeros(1, 3, model.image_size, model.image_size))
    return unet_count.get_total_flops(), vae_count.get_total_flops()


def throughput_table(task: Task, report: dict) -> Table:
    rate = report["matmul_flops"]
    flop = f"{report['unet_flop'] / 1e12:.3g} TFLOP per U-Net forward, {report['vae_flop'] / 1e12:.3g} per VAE encoding"
    table = Table(
        title=f"{task.classes} classes, {len(task.timesteps)} timesteps, {task.dtype} on {report['machine']['device']}",
        caption=f"{flop}; a matrix product reaches {rate / 1e12:.3g} TFLOP/s",
    )
    shares = [f"{title} %" for title in PARTS.values()]
    for column in ("batch", "images/s", *shares, "TFLOP/s", "of matmul %", "peak, MiB"):
        table.add_column(column, justify="right")
    for row in report["batches"]:
        if row.get("out_of_memory"):
            table.add_row(str(row["batch"]), "out of memory")
            continue
        share = [f"{100 * row['share'][part]:.1f}" for part in PARTS]
        speed = [f"{row['flops'] / 1e12:.3g}", f"{100 * row['flops'] / rate:.0f}", f"{row['peak_bytes'] / MIB:.0f}"]
        table.add_row(str(row["batch"]), f"{row['images_per_second']:.3g}", *share, *speed)
    return table


if __name__ == "__main__":
    main()
