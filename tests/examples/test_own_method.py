"""A user's file that adds a method, from the command line and from Python: units, ledger, shards, CRF and scores."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pseudolabel as pl
from pseudolabel.methods.registry import METHODS
from pseudolabel.shapes.dataset import write_shapes
from tests.e2e.commands import call, expect, finished_units, shards
from tests.e2e.forks import run_fork

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[2] / "docs" / "examples" / "own_method.py"
SETTINGS = {"method": "cam", "cam.scenes": 100, "work.unit": 3, "work.workers": 1, "crf.iterations": 1}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Remove the method after these tests."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    write_shapes(folder, train=0, val=8, seed=77)
    return folder


@pytest.fixture(scope="module")
def python_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("python")
    summary = pl.generate("shapes", {**SETTINGS, "plugins": [str(FILE)], "source.path": data, "out": out})
    assert (summary.samples, summary.failed) == (8, 0)
    return out


def options(data: Path, out: Path, plugin: Path = FILE, **changes: object) -> list[object]:
    settings = {**SETTINGS, "plugins": plugin, "source.path": data, "out": out, **changes}
    return ["--config", "shapes", *(part for name, value in settings.items() for part in (f"--{name}", value))]


def test_the_file_is_short() -> None:
    assert len(FILE.read_text().splitlines()) <= 40


@pytest.mark.parametrize("option", ["-h", "--help-all"])
def test_help_explains_its_options(option: str) -> None:
    shown = " ".join(call("cams", "--plugins", FILE, option).out.split())
    assert "--cam.scenes SCENES number of drawn images that the classifier is trained on. (default: 300)" in shown
    assert "whether the image has the class: --cam" in shown


def test_two_processes_write_the_bytes_that_python_writes(data, python_run, tmp_path) -> None:
    expect(0, run_fork("generate", *options(data, tmp_path), ranks=2))
    for kind in ("cams", "masks"):
        assert len(shards(python_run / kind)) == 4
        assert shards(tmp_path / kind) == shards(python_run / kind)


def test_its_maps_find_the_shapes(data, python_run) -> None:
    report = pl.evaluate("shapes", {"source.path": data, "out": python_run}, kind="cams")
    assert report.oracle.miou > 0.8


def test_a_stopped_run_resumes(data, python_run, tmp_path) -> None:
    shutil.copytree(python_run / "cams", tmp_path / "cams")
    for name in ("cams-000001.tar", "cams-000001.json", "index.json"):
        (tmp_path / "cams" / name).unlink()
    before = finished_units(tmp_path / "cams")
    done = call("generate", *options(data, tmp_path))
    assert done.status == 0, done.err
    assert before.items() <= finished_units(tmp_path / "cams").items()
    assert len(before) == 2
    for kind in ("cams", "masks"):
        assert shards(tmp_path / kind) == shards(python_run / kind)


def test_other_settings_and_other_code_are_refused(data, python_run, tmp_path) -> None:
    before = shards(python_run / "cams")
    changed = call("generate", *options(data, python_run, **{"cam.scenes": 50}))
    assert changed.is_clean_error()
    assert "cam" in changed.err
    assert "scenes" in changed.err
    plugin = tmp_path / "own_method.py"
    plugin.write_text(FILE.read_text() + "# changed\n")
    other_code = call("generate", *options(data, python_run, plugin))
    assert other_code.is_clean_error()
    assert "  plugin: the file that registers the method has changed since the run began\n" in other_code.err
    assert "Choose another --out, restore that file, or remove that folder to start again." in other_code.err
    assert shards(python_run / "cams") == before


def test_segment_loads_no_diffusion_model(data, tmp_path) -> None:
    image = min((data / "JPEGImages").iterdir())
    method = ("--method", "cam", "--plugins", FILE, "--cam.scenes", 20, "--model.name", "/nowhere")
    done = call("segment", image, "--config", "shapes", *method, "--classes", "star, square", "--out", tmp_path)
    assert done.status == 0, done.err
    described = json.loads((tmp_path / f"{image.stem}.json").read_text())
    assert (described["method"], described["model"]) == ("cam", None)
    assert Image.open(tmp_path / f"{image.stem}.png").size == Image.open(image).size


def test_the_method_on_images_in_memory(data) -> None:
    pl.load_plugins([str(FILE)])
    images = sorted((data / "JPEGImages").iterdir())[:3]
    method = pl.ImageMethod("cam", vocabulary="shapes", scenes=20)
    results = list(method(images, ["star", "square"]))
    assert [result.scores.shape for result in results] == [(2, 128, 128)] * 3
    assert all(np.isfinite(result.scores).all() for result in results)
    segmenter = pl.Segmenter.from_pretrained("/nowhere", method="cam", device="cpu")
    assert segmenter(images[0], ["star"]).classes == ("star",)
