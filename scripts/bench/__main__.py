"""Run a benchmark, from the repository's root.

    python -m scripts.bench NAME [OPTIONS]      # prints Markdown tables; --json FILE also writes the figures
    python -m scripts.bench NAME --help         # what it measures, and its options

A benchmark is a module of this package with `COMMON`, the names of the common options that it takes, `add_arguments`
for its own, `measure`, which returns the figures, and `tables`, which shows them.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence

import torch

from pseudolabel.runtime.cores import sleep_while_waiting

from .measure import machine, versions
from .options import add_common
from .report import free_file, write_report

NAMES = ["cams", "confidence", "crf", "exports", "generate", "growth", "loading", "methods"]
NAMES += ["precision", "presets", "restart", "scale", "segment", "training"]


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    chooser = argparse.ArgumentParser(
        "python -m scripts.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chooser.add_argument("name", choices=NAMES)
    name = chooser.parse_args(given[:1]).name
    bench = importlib.import_module(f".{name}", __package__)
    args = build_parser(bench, name).parse_args(given[1:])
    report = bench.measure(args)
    device = torch.device(getattr(args, "device", "cpu"))
    report |= {"settings": vars(args), "machine": machine(device), "versions": versions(), "date": time.strftime("%F")}
    print("\n\n".join(bench.tables(report)))
    if args.json:
        write_report(args.json, report)


def build_parser(bench, name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"python -m scripts.bench {name}",
        description=bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser, bench.COMMON)
    bench.add_arguments(parser)
    parser.add_argument("--json", type=free_file, help="file for the figures")
    return parser


if __name__ == "__main__":
    sleep_while_waiting()
    main()
