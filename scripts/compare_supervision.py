"""Training on pseudo-masks beside training on exact masks, over several seeds, with mean and spread.

Each seed is one whole run of scripts/demo.py on images of its own: labels, CAMs, shards, both trainings, scores.

    python scripts/compare_supervision.py --seeds 20231 20232 20233
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import claim_folder

FIGURES = ("cam_miou", "mask_miou", "val_miou", "val_miou_full_supervision", "percent_of_full_supervision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/supervision"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[20231, 20232, 20233])
    arguments = parser.parse_args()
    try:
        claim_folder(arguments.out, "compare_supervision.py")
    except OutputError as error:
        parser.error(str(error))
    for seed in arguments.seeds:
        demo = [sys.executable, "scripts/demo.py", "--seed", str(seed), "--out", str(arguments.out / str(seed))]
        subprocess.run(demo, check=True)
    summary = summarise(arguments.out, arguments.seeds)
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    show(summary, arguments.seeds)


def summarise(out: Path, seeds: list[int]) -> dict[str, dict]:
    """For every figure, in per cent: its value for each seed, their mean and sample standard deviation."""
    runs = [json.loads((out / str(seed) / "metrics.json").read_text()) for seed in seeds]
    summary = {}
    for name in FIGURES:
        values = [run[name] * (1 if name.startswith("percent") else 100) for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        summary[name] = {"values": values, "mean": statistics.mean(values), "standard_deviation": spread}
    return summary


def show(summary: dict[str, dict], seeds: list[int]) -> None:
    table = Table("", *(f"seed {seed}" for seed in seeds), "mean", "standard deviation")
    for name, row in summary.items():
        spread = row["standard_deviation"]
        figures = [*row["values"], row["mean"]]
        table.add_row(name, *(f"{value:.2f}" for value in figures), "-" if spread is None else f"{spread:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
