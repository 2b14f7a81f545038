"""The training benchmark runs and says what it measured; how fast that is is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_iterations_waiting_and_memory_are_measured(tmp_path: Path) -> None:
    options = ["--batch", "1", "--crop", "65", "--iterations", "2", "--images", "4", "--workers", "0"]
    command = [sys.executable, "scripts/bench/training.py", *options, "--json", str(tmp_path / "figures.json")]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    first = report["figures"][0]
    assert first["precision"] == "float32"
    assert first["iterations_per_second"] > 0
    assert 0 < first["data_share"] < 1
    assert first["peak_bytes"] > 4 * 42e6  # the parameters of ResNet-101 alone
    assert f"| float32 | {first['iterations_per_second']:.2f} | 1.00 |" in finished.stdout
    assert {"torch", "mmcv", "mmengine"} <= report["versions"].keys()
