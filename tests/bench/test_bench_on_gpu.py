"""The checks of a GPU: their options are those of the benchmarks, and each step is reported however it ends."""

import os
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest

from scripts.bench import on_gpu
from scripts.bench.__main__ import build_parser


@pytest.mark.parametrize("model", ["sd15", "shapes"])
@pytest.mark.parametrize("quick", [True, False])
def test_every_step_is_a_benchmark_with_valid_options(model, quick):
    arguments = Namespace(device="cuda", model=model, images=384, quick=quick)
    steps = on_gpu.steps(arguments, Path("checkpoint"))
    benchmarks = [step for step in steps if "scripts.bench" in step.arguments]
    assert (
        len(benchmarks)
        == {(True, "shapes"): 3, (True, "sd15"): 4, (False, "shapes"): 8, (False, "sd15"): 9}[quick, model]
    )
    for step in benchmarks:
        _, _, name, *options = step.arguments
        parsed = build_parser(import_module(f"scripts.bench.{name}"), name).parse_args(options)
        assert parsed.device == "cuda"
        assert parsed.json == Path(f"{step.name}.json")
    assert ("model" in {step.name for step in steps}) == (model == "sd15")
    (tests,) = (step for step in steps if step.name == "tests")
    assert "tests/crf/test_torch_engine.py" in tests.arguments


def test_chosen_steps_follow_the_model():
    arguments = Namespace(device="cpu", model="sd15", images=8, quick=False)
    steps = on_gpu.steps(arguments, Path("checkpoint"))
    assert on_gpu.chosen(steps, None) == steps
    assert [step.name for step in on_gpu.chosen(steps, ["cams", "crf"])] == ["model", "cams", "crf"]
    assert [step.name for step in on_gpu.chosen(steps, ["cams", "model"])] == ["model", "cams"]
    assert [step.name for step in on_gpu.chosen(steps, ["crf"])] == ["crf"]
    with pytest.raises(SystemExit, match="no step is called cam; there are crf, model, "):
        on_gpu.chosen(steps, ["cam"])


def test_steps_need_nothing_of_the_extra_train():
    modules = ("mmcv", "mmengine", "mmseg", "tensorboard")
    parts = (*(f"scripts.bench.{name}" for name in ("cams", "crf", "generate", "precision")), "tests.stages.test_cuda")
    program = f"import sys; sys.modules |= dict.fromkeys({modules}); import {', '.join(parts)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=on_gpu.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_benchmark_runs_as_a_step(tmp_path):
    step = on_gpu.crf(Namespace(device="cpu", quick=True))
    with on_gpu.environment() as variables:
        outcome = on_gpu.run(step, tmp_path, variables, 200)
    assert outcome.status == "done", (tmp_path / "crf.log").read_text()
    figures = outcome.figures
    settings = [(one["preset"], one["height"], one["width"], one["labels"]) for one in figures["speed"]]
    assert settings == [("clip-es", 64, 64, 2), ("shapes", 64, 64, 2)]
    for one in figures["speed"]:
        for engine, ratio in one["ratios"].items():
            assert ratio == pytest.approx(one["pydensecrf"] / one[engine])
    assert [one["engine"] for one in figures["agreement"]] == ["scipy", "torch"] * 2
    for one in figures["agreement"]:
        assert one["images"] == 2
        assert one["pixels"] == 2 * 256 * 256
        assert one["equal_labels"] >= 0.999
        assert one["worst_image"] <= one["equal_labels"]
    report = on_gpu.report([outcome])
    assert figures["versions"]["torch"] in report
    assert "clip-es" in report


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SystemExit, match="holds files that this script did not write"):
        on_gpu.claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_step_that_fails_or_takes_too_long_is_reported(tmp_path):
    made = "import json, sys; json.dump({'figure': 1}, open(sys.argv[1], 'w')); print('| a table |')"
    given = [
        on_gpu.Step("good", ["-c", made, "good.json"], 60),
        on_gpu.Step("bad", ["-c", "raise SystemExit('what went wrong')"], 60),
        on_gpu.Step("slow", ["-c", "import time; time.sleep(120)"], 0.5),
    ]
    good, bad, slow = (on_gpu.run(step, tmp_path, dict(os.environ), 60) for step in given)
    late = on_gpu.run(given[0], tmp_path, dict(os.environ), -1)
    assert [one.status for one in (good, bad, slow, late)] == ["done", "failed with 1", "out of time", "no time left"]
    assert (good.figures, good.tables) == ({"figure": 1}, "| a table |")
    assert (bad.figures, bad.tables) == (None, "")
    assert "what went wrong" in (tmp_path / "bad.log").read_text()
    report = on_gpu.report([good, bad, slow, late])
    assert "| bad | failed with 1 |" in report
    assert "## good\n\n| a table |\n" in report
