"""The benchmark's figures on a few images; how large they are is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
READERS = ["files", "ShardDataset"]


def bench(path: Path, *arguments: object) -> tuple[dict, str]:
    command = [sys.executable, "scripts/bench/loading.py", "--repeat", "1", "--json", str(path), *map(str, arguments)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text()), finished.stdout


def test_all_readers_are_measured(tmp_path: Path) -> None:
    report, table = bench(tmp_path / "figures.json", "--images", 6, "--batch", 2, "--workers", "0,1")
    figures = report["figures"]
    assert report["images"] == 6
    assert [(one["pipeline"], one["workers"], one["reader"]) for one in figures] == [
        (pipeline, workers, reader) for pipeline in ("decode", "train") for workers in (0, 1) for reader in READERS
    ]
    for one in figures:
        assert min(one["images_per_second"], one["cpu_seconds"], one["first_batch"], one["peak_bytes"]) > 0
        assert (one["worker_bytes"] > 0) == (one["workers"] > 0)
        assert f"| {one['pipeline']} | {one['workers']} | {one['reader']} | {one['images_per_second']:.0f} |" in table
    shares = [line.split("|")[5].strip() for line in table.splitlines()[2:14]]
    assert shares[::3] == ["1.00"] * 4
    assert float(shares[1]) == pytest.approx(
        figures[1]["images_per_second"] / figures[0]["images_per_second"], abs=0.01
    )
    assert {"torch", "mmcv", "mmengine"} <= report["versions"].keys()
    assert report["machine"]["cores"] >= 1


def test_real_images_are_read(tmp_path: Path, voc_sample: Path) -> None:
    report, _ = bench(tmp_path / "figures.json", "--voc", voc_sample, "--images", 4, "--batch", 2, "--workers", 0)
    assert report["images"] == 4
    assert len(report["figures"]) == 6
