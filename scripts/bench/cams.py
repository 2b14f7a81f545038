"""Seconds and memory of DiffSegmenter: ours and the released code's, on Stable Diffusion v1.5's architecture.

    python -m scripts.bench cams                                    # both, one image, 2 classes, 4 timesteps
    python -m scripts.bench cams --model shapes --json cams.json    # the small model that ships
    python -m scripts.bench cams --device cuda --dtype bfloat16 --batches 4,8,16,32    # ours alone, images per second

Weights are random: neither time nor memory depends on them, and both must give the same maps. Each runs in a process
of its own. Memory is the peak above what the loaded weights take.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from pseudolabel.config import DiffSegmenterConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.shapes.world import draw_scene

from .measure import Clock, Peak, in_own_process, matmul_rate
from .options import PROMPTS, Dtype, checkpoint, whole_numbers
from .report import MIB, table
from .ways import ours, released

COMMON = ("model", "classes", "image-size", "dtype", "device", "threads", "batch", "repeat", "seed")
PARTS = {"vae": "VAE", "text": "text", "unet": "U-Net", "propagation": "propagation"}
ROUNDS = 3  # U-Net batches of one size in a throughput run


@dataclass(frozen=True)
class Task:
    """What both do; `model` is `shapes` or a checkpoint folder."""

    model: str
    images: int
    classes: int
    timesteps: list[int]
    image_size: int
    dtype: Dtype
    device: str
    threads: int
    batch: int
    repeat: int
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timesteps", type=whole_numbers, default=[1, 50, 100, 150], help="with commas")
    parser.add_argument("--batches", type=whole_numbers, default=[], help="with commas: images/s of ours at each")


def measure(args: argparse.Namespace) -> dict:
    settings = {name: value for name, value in vars(args).items() if name in Task.__annotations__}
    with checkpoint(args.model) as model:
        task = Task(**settings | {"model": model, "images": 1})
        return in_own_process(throughput, task, args.batches) if args.batches else compare(task)


def tables(report: dict) -> list[str]:
    return [throughput_table(report) if "batches" in report else comparison_table(report)]


# Both, side by side.


def compare(task: Task) -> dict:
    old, new = (in_own_process(measure_one, task, way) for way in ("released", "ours"))
    old_maps, new_maps = old.pop("maps"), new.pop("maps")
    return {
        "speedup": old["seconds"] / new["seconds"],
        "memory_ratio": old["peak_bytes"] / max(1, new["peak_bytes"]),
        "max_abs_diff": float(np.abs(old_maps - new_maps).max()),
        "map_range": [float(old_maps.min()), float(old_maps.max())],
        "released": old,
        "ours": new,
    }


def measure_one(task: Task, way: str) -> dict:
    """The fastest of the runs with its maps, and the mean CPU time and the peak over all runs.

    Other work on the machine changes CPU seconds less than seconds.
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
    clock, names = Clock(model.device), PROMPTS[: task.classes]
    started = time.perf_counter()
    if way == "ours":
        maps = ours(model, config, images, names, noise, clock, task.batch)
    else:
        maps = released(model, config, images, names, noise, clock)
    return time.perf_counter() - started, clock.seconds, maps


def comparison_table(report: dict) -> str:
    settings, old, new = report["settings"], report["released"], report["ours"]
    rows = [(f"{title}, s", old["parts"][part], new["parts"][part]) for part, title in PARTS.items()]
    rows.append(("all, s", old["seconds"], new["seconds"]))
    rows.append(("all, CPU s", old["cpu_seconds"], new["cpu_seconds"]))
    rows.append(("peak above the weights, MiB", old["peak_bytes"] / MIB, new["peak_bytes"] / MIB))
    return table(
        f"1 image, {settings['classes']} classes, {len(settings['timesteps'])} timesteps, "
        f"{settings['dtype']} on {settings['device']}",
        ["", "released way", "ours", "ratio"],
        [
            [title, f"{before:.3g}", f"{after:.3g}", f"{before / after:.2f}" if after else ""]
            for title, before, after in rows
        ],
        f"Largest difference between the maps: {report['max_abs_diff']:.1e}.",
    )


# Ours alone, at several batch sizes.


def throughput(task: Task, batches: list[int]) -> dict:
    model, device = prepare(task)
    unet_flop, vae_flop = count_flop(model)
    return {
        "matmul_flops": matmul_rate(device, model.dtype),
        "unet_flop": unet_flop,
        "vae_flop": vae_flop,
        "batches": [one_batch_size(replace(task, batch=batch), model, unet_flop, vae_flop) for batch in batches],
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
    """Of a complete U-Net forward and a VAE encoding, counted on shapes alone; ours stops before the U-Net's end."""
    width, (channels, side, _) = model.unet.config.cross_attention_dim, model.latent_shape
    with torch.device("meta"), torch.no_grad():
        unet, vae = UNet2DConditionModel.from_config(model.unet.config), AutoencoderKL.from_config(model.vae.config)
        with FlopCounterMode(display=False) as unet_count:
            unet(torch.zeros(1, channels, side, side), torch.zeros(1), torch.zeros(1, 77, width))
        with FlopCounterMode(display=False) as vae_count:
            vae.encode(torch.zeros(1, 3, model.image_size, model.image_size))
    return unet_count.get_total_flops(), vae_count.get_total_flops()


def throughput_table(report: dict) -> str:
    rate, settings = report["matmul_flops"], report["settings"]
    rows = []
    for row in report["batches"]:
        if row.get("out_of_memory"):
            rows.append([row["batch"], "out of memory", *[""] * (len(PARTS) + 3)])
            continue
        share = [f"{100 * row['share'][part]:.1f}" for part in PARTS]
        speed = [f"{row['flops'] / 1e12:.3g}", f"{100 * row['flops'] / rate:.0f}", f"{row['peak_bytes'] / MIB:.0f}"]
        rows.append([row["batch"], f"{row['images_per_second']:.3g}", *share, *speed])
    return table(
        f"{settings['classes']} classes, {len(settings['timesteps'])} timesteps, {settings['dtype']} on "
        f"{report['machine']['device']}",
        ["batch", "images/s", *(f"{title} %" for title in PARTS.values()), "TFLOP/s", "of matmul %", "peak, MiB"],
        rows,
        f"{report['unet_flop'] / 1e12:.3g} TFLOP per U-Net forward, {report['vae_flop'] / 1e12:.3g} per VAE encoding; "
        f"a matrix product reaches {rate / 1e12:.3g} TFLOP/s.",
    )
