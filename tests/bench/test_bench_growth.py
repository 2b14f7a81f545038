"""The benchmarks of growing cost with tiny numbers; how large the figures are is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ["python and imports", "listing", "model", "fingerprint", "ledger", "choice"]


def bench(path: Path, name: str, *arguments: object) -> tuple[dict, str]:
    command = [sys.executable, f"scripts/bench/{name}.py", *map(str, arguments), "--json", str(path)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text()), finished.stdout


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    options = ["--parts", "processes", "--samples", 4, "--ranks", 1]
    report, shown = bench(tmp_path / "growth.json", "growth", *options)
    assert [(row["ranks"], row["samples"]) for row in report["processes"]] == [(1, 4)]
    for row in report["processes"]:
        assert 0 < row["first_shard"] <= row["seconds"]
        assert row["images_per_second"] > row["samples"] / row["seconds"]  # starting is left out
        assert row["cpu_seconds"] > 1
    assert "4 images per process" in shown


@pytest.mark.slow
def test_a_restart(tmp_path: Path) -> None:
    report, shown = bench(tmp_path / "restart.json", "restart", "--samples", 600)
    assert (report["samples"], report["units"]) == (600, 3)
    assert list(report["cams"]["parts"]) == PARTS
    for name in ("seconds", "cpu_seconds"):
        assert report["cams"][name] == pytest.approx(sum(row[name] for row in report["cams"]["parts"].values()))
    assert report["masks"]["seconds"] > 0
    assert "restart at 600 samples in 3 units" in shown
