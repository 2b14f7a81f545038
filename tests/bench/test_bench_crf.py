"""The benchmark of DenseCRF's engines, on scenes that are soon done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "crf.py"


@pytest.mark.slow
def test_both_engines_are_timed_and_compared(tmp_path):
    target = tmp_path / "crf.json"
    options = ["--sizes", "32x48,64x64", "--labels", "2,5", "--images", "2", "--json", str(target)]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(target.read_text())
    settings = [(one["preset"], one["height"], one["width"], one["labels"]) for one in report["speed"]]
    sizes = [(32, 48, 2), (32, 48, 5), (64, 64, 2), (64, 64, 5)]
    assert settings == [(preset, *size) for preset in ("clip-es", "shapes") for size in sizes]
    for one in report["speed"]:
        assert one["ratio"] == pytest.approx(one["pydensecrf"] / one["torch"])
    for one in report["agreement"]:
        assert one["images"] == 2
        assert one["pixels"] == 2 * 256 * 256
        assert one["equal_labels"] >= 0.999
        assert one["worst_image"] <= one["equal_labels"]
    assert "clip-es" in done.stdout
