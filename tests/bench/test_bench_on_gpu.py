"""Every check of a GPU, on a CPU with the shipped model; how large figures are is no test's business."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STATIONS = {"reading", "resize", "vae", "text", "unet", "propagation", "writing"}


def load_on_gpu():
    specification = importlib.util.spec_from_file_location("on_gpu", REPOSITORY / "scripts" / "bench" / "on_gpu.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["on_gpu"] = module  # where its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_checks_of_a_gpu_run_on_a_cpu_too(tmp_path):
    options = ["--out", str(tmp_path), "--quick", "--device", "cpu", "--model", "shapes"]
    command = [sys.executable, "scripts/bench/on_gpu.py", *options, "--minutes", "15"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = (tmp_path / "report.md").read_text()
    assert report in finished.stdout
    figures, logs = {}, {}
    for name in ("crf", "generate-batch16", "precision-shapes"):
        assert f"| {name} | done |" in report
        figures[name] = json.loads((tmp_path / f"{name}.json").read_text())
        logs[name] = (tmp_path / f"{name}.log").read_text()
        assert figures[name]["versions"]["torch"] in report
    check_crf(figures["crf"], logs["crf"])
    check_generate(figures["generate-batch16"], logs["generate-batch16"])
    check_precision(figures["precision-shapes"], logs["precision-shapes"])


def check_crf(report, table):
    """Both engines are timed and agree."""
    settings = [(one["preset"], one["height"], one["width"], one["labels"]) for one in report["speed"]]
    assert settings == [("clip-es", 64, 64, 2), ("shapes", 64, 64, 2)]
    for one in report["speed"]:
        assert one["ratio"] == pytest.approx(one["pydensecrf"] / one["torch"])
    for one in report["agreement"]:
        assert one["images"] == 2
        assert one["pixels"] == 2 * 256 * 256
        assert one["equal_labels"] >= 0.999
        assert one["worst_image"] <= one["equal_labels"]
    assert "clip-es" in table


def check_generate(report, table):
    """The whole, its stations and the released way."""
    whole, stations, released = report["whole"], report["stations"], report["released"]
    assert stations["seconds_per_image"].keys() == STATIONS
    assert all(seconds > 0 for seconds in stations["seconds_per_image"].values())
    for name in ("labelling", "refining", "all"):
        assert whole[name]["first_shard_seconds"] > 0
    rate = report["images_per_second"]
    assert rate == whole["all"]["images_per_second"]
    assert report["settings"]["images"] == 4
    classes = math.floor(1.555 * 4) / 4
    assert report["flop_per_image"] == pytest.approx(whole["vae_flop"] + classes * 4 * whole["unet_flop"])
    assert report["share_of_matmul"] == pytest.approx(rate * report["flop_per_image"] / whole["matmul_flops"])
    assert report["train_aug_minutes"] == pytest.approx(10_582 / rate / 60)
    assert report["speedup"] == pytest.approx(rate * released["seconds_per_image"])
    assert released["seconds_per_image"] > released["seconds"]
    for title in ("reading", "VAE", "U-Net", "propagation", "DenseCRF alone", "the whole", "the released way"):
        assert title in table


def check_precision(report, table):
    """Half precision gives nearly the same masks."""
    agreement = report["agreement"]["bfloat16"]
    assert agreement["images"] == 4
    assert 0.99 <= agreement["worst_image"] <= agreement["equal_pixels"] <= 1
    assert 0 < agreement["mean_map_difference"] < agreement["largest_map_difference"] < 0.1
    assert "bfloat16" in table


def test_a_step_that_fails_or_takes_too_long_is_told(tmp_path):
    on_gpu = load_on_gpu()
    made = "import json, sys; json.dump({'figure': 1}, open(sys.argv[1], 'w'))"
    given = [
        on_gpu.Step("good", ["-c", made, "good.json"], 60),
        on_gpu.Step("bad", ["-c", "print('what went wrong'); raise SystemExit(3)"], 60),
        on_gpu.Step("slow", ["-c", "import time; time.sleep(120)"], 0.5),
    ]
    good, bad, slow = (on_gpu.run(step, tmp_path, dict(os.environ), 60) for step in given)
    late = on_gpu.run(given[0], tmp_path, dict(os.environ), -1)
    assert [one.status for one in (good, bad, slow, late)] == ["done", "failed with 3", "out of time", "no time left"]
    assert good.figures == {"figure": 1}
    assert bad.figures == {}
    assert "what went wrong" in (tmp_path / "bad.log").read_text()
    assert "| bad | failed with 3 |" in on_gpu.report([good, bad, slow, late])
