"""The script runs from end to end on a few images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_row_for_every_doubling(tmp_path):
    options = ["--out", tmp_path, "--images", 1, "--samples", 3]
    command = [sys.executable, "scripts/elbo_curve.py", *map(str, options)]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((tmp_path / "elbo_curve.json").read_text())
    assert report["data"] == {"source": "shapes", "seed": 20231, "images": 1, "tuned_on": 0}
    for rows in report["curves"].values():
        assert [row["samples"] for row in rows] == [1, 2, 3]
        assert all(0 <= row["miou"] <= row["oracle_miou"] <= 1 for row in rows)
    assert report["curves"]["softmax"] != report["curves"]["argmax"]
    assert Image.open(tmp_path / "elbo_curve.png").width > 900
