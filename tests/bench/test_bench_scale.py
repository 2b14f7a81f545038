"""The scale run with few images; how long it takes is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pseudolabel.io.folder import Folder
from pseudolabel.shards.verify import verify

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_run_killed_once_ends_whole(tmp_path: Path) -> None:
    work, figures = tmp_path / "work", tmp_path / "figures.json"
    options = ["--work", work, "--images", 16, "--unit", 2, "--kills", 1, "--json", figures]
    command = [sys.executable, "scripts/bench/scale.py", *map(str, options)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(figures.read_text())
    killed, whole = report["starts"]
    assert (killed["ranks"], killed["killed"], whole["ranks"], whole["killed"]) == (2, True, 1, False)
    assert 4 <= killed["shards"]["masks"] < 8
    assert whole["shards"] == {"cams": 8, "masks": 8}
    assert killed["samples"] + whole["samples"] == 16
    assert killed["lost"] > 0 == whole["lost"]
    assert report["done_twice"] == {"cams": 0, "masks": 0}
    for kind, member in (("cams", "cam.npz"), ("masks", "png")):
        assert verify(Folder(str(work / "out" / kind))) == []
        ledger = report["ledgers"][kind]
        assert (ledger["shards"], ledger["samples"], ledger["statuses"]) == (8, 16, {"ok": 16})
        assert set(ledger["member_bytes"]) == {"jpg", member, "json", "tar"}
        assert sum(ledger["member_bytes"].values()) == pytest.approx(ledger["sample_bytes"])
        assert ledger["unit_seconds"]["median"] <= ledger["unit_seconds"]["p95"] <= ledger["unit_seconds"]["max"]
        assert f"{work}/out/{kind}: complete and valid" in finished.stdout
