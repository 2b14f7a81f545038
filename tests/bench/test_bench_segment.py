"""The benchmark of whole methods, on the small models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "segment.py"


@pytest.mark.slow
def test_every_method_is_timed_both_ways(tmp_path):
    target = tmp_path / "segment.json"
    options = ["--model", "shapes", "--threads", "1", "--samples", "1", "--json", str(target)]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(target.read_text())
    assert set(report["seconds"]) == {"diffsegmenter", "elbo", "diffseg", "freesegdiff"}
    for method, seconds in report["seconds"].items():
        assert set(seconds) == {"plain", "ours"}
        assert all(value > 0 for value in seconds.values())
        assert method in done.stdout
