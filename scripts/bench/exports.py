"""Time and memory of `pseudolabel export` in every format.

    python -m scripts.bench exports                                  # 2,000 and 20,000 samples of 500 x 375 pixels
    python -m scripts.bench exports --samples 20 --formats png,hf    # a small run

The samples repeat 256 drawn ones under other keys. Each export runs in a process of its own, then the same command
again, which finds everything done. The folders lie below --folder, by default where temporary files lie, one at a time.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pseudolabel.exports.export import export
from pseudolabel.exports.formats import FORMATS
from pseudolabel.exports.names import FormatName
from pseudolabel.io.tar import write_tar
from pseudolabel.runtime.batching import batched
from pseudolabel.vocabulary import load_vocabulary

from .loading import SHARD, cpu_seconds, draw_sample
from .measure import Peak, in_own_process
from .options import whole_numbers
from .report import MIB, table

COMMON = ("seed",)
DISTINCT = 256


@dataclass(frozen=True)
class Figures:
    """Of one export.

    Attributes:
        format, samples: what was exported.
        seconds, cpu_seconds: of the export.
        again_seconds: of the same command on the finished export.
        peak_bytes: resident set of the process above what it held before.
        written_bytes, files: in the folder.
    """

    format: str
    samples: int
    seconds: float
    cpu_seconds: float
    again_seconds: float
    peak_bytes: int
    written_bytes: int
    files: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=whole_numbers, default=[2000, 20000], help="with commas")
    parser.add_argument("--formats", type=lambda text: text.split(","), default=list(FORMATS), help="with commas")
    parser.add_argument("--folder", type=Path, help="where to write; each export is removed after it")


def measure(args: argparse.Namespace) -> dict:
    drawn = [draw_sample(args.seed, number)[1:] for number in range(min(DISTINCT, max(args.samples)))]
    figures = []
    for samples in args.samples:
        with TemporaryDirectory(dir=args.folder) as name:
            write_shards(Path(name) / "masks", drawn, samples)
            for chosen in args.formats:
                figures.append(asdict(in_own_process(measure_export, Path(name), chosen, samples)))
                shutil.rmtree(Path(name) / "export")
    return {"figures": figures}


def write_shards(folder: Path, drawn: list[tuple[bytes, bytes]], samples: int) -> None:
    folder.mkdir()
    for number, shard in enumerate(batched(repeated(drawn, samples), SHARD)):
        with (folder / f"masks-{number:06d}.tar").open("wb") as file:
            write_tar(file, shard)
    labels = {str(label): name for label, name in enumerate(load_vocabulary("shapes").names)}
    (folder / "id2label.json").write_text(json.dumps(labels))


def repeated(drawn: list[tuple[bytes, bytes]], samples: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    for number in range(samples):
        image, mask = drawn[number % len(drawn)]
        yield f"{number:06d}", {"jpg": image, "png": mask, "json": b"{}"}


def measure_export(folder: Path, chosen: FormatName, samples: int) -> Figures:
    torch.set_num_threads(1)
    peak, cpu_before, started = Peak(torch.device("cpu")), cpu_seconds(), time.perf_counter()
    target = folder / "export"
    assert export(folder / "masks", chosen, target).samples == samples
    seconds, cpu, peak_bytes = time.perf_counter() - started, cpu_seconds() - cpu_before, peak.bytes()
    started = time.perf_counter()
    assert export(folder / "masks", chosen, target).written == 0
    again = time.perf_counter() - started
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    return Figures(chosen, samples, seconds, cpu, again, peak_bytes, sum(sizes), len(sizes))


def tables(report: dict) -> list[str]:
    rows = [
        [
            *(one["format"], f"{one['samples']:,}", f"{one['seconds']:.0f}", f"{one['samples'] / one['seconds']:.0f}"),
            *(f"{1e3 * one['cpu_seconds'] / one['samples']:.2f}", f"{one['peak_bytes'] / MIB:.0f}"),
            *(f"{one['written_bytes'] / MIB:,.0f}", f"{one['files']:,}", f"{one['again_seconds']:.1f}"),
        ]
        for one in report["figures"]
    ]
    heads = ["format", "samples", "s", "samples/s", "CPU ms/sample", "peak above start, MiB", "written, MiB", "files"]
    return [table("Exports", [*heads, "again, s"], rows)]
