"""The benchmark's figures on small maps; how large they are is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {"aggregation", "merging", "suppression"}


def bench(path, *arguments):
    command = [sys.executable, "scripts/bench/methods.py", *arguments, "--threads", "1", "--json", str(path)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text()), finished.stdout


@pytest.mark.slow
def test_all_ways_of_diffseg_give_the_same_masks(tmp_path):
    report, table = bench(tmp_path / "figures.json", "diffseg", "--side", "16", "--anchors", "6", "--output", "64")
    assert report["different_pixels"] == {"released": 0, "loop": 0}
    assert report["segments"] > 2
    for way in ("released", "loop"):
        assert report["speedup"][way] == pytest.approx(report[way]["seconds"] / report["ours"]["seconds"])
    for way in ("ours", "released", "loop"):
        assert report[way]["parts"].keys() == PARTS
        assert 0.5 * report[way]["seconds"] < sum(report[way]["parts"].values()) <= report[way]["seconds"]
        assert report[way]["peak_bytes"] >= 0
    assert report["settings"]["side"] == 16
    for title in ("aggregation", "merging", "suppression", "released way", "plain loop", "peak"):
        assert title in table
