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
def test_every_table_is_filled(tmp_path: Path) -> None:
    options = ["--samples", 4, "--ranks", 1, 2, "--sizes", 160, "--listed", 600]
    report, shown = bench(tmp_path / "growth.json", "growth", *options)
    assert [(row["ranks"], row["samples"]) for row in report["processes"]] == [(1, 4), (2, 8)]
    for row in report["processes"]:
        assert 0 < row["first_shard"] <= row["seconds"]
        assert row["images_per_second"] > row["samples"] / row["seconds"]  # starting is left out
    changed = [(row["changed"], row[row["changed"]]) for row in report["memory"]]
    expected = [("samples", 4), ("samples", 8), ("samples", 16), ("classes", 1), ("classes", 6), ("size", 160)]
    assert changed == [*expected, ("unit", 32), ("unit", 64)]
    assert all(row["peak_bytes"] > 1e6 for row in report["memory"])
    restart = report["restart"]
    assert (restart["samples"], restart["units"]) == (600, 3)
    assert list(restart["cams"]["parts"]) == PARTS
    assert restart["cams"]["seconds"] == pytest.approx(sum(row["seconds"] for row in restart["cams"]["parts"].values()))
    assert restart["masks"]["seconds"] > 0
    for title in ("images per process", "peak of generate", "restart at 600 samples in 3 units"):
        assert title in shown
