"""Wheel and editable installs: the same files under the same names, and nothing else at top level."""

import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
DATA = ("*.py", "*.yaml", "py.typed", "*.safetensors", "*.json", "*.txt")

PINS = [
    Requirement(line.split("#")[0])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.split("#")[0]
]


@pytest.mark.parametrize("pin", PINS, ids=str)
def test_pins_are_installed_and_take_the_first_python_of_each_minor_version(pin: Requirement) -> None:
    """A pin that refuses somebody's Python makes pip search for hours instead of saying so."""
    if pin.marker is not None and not pin.marker.evaluate():
        pytest.skip("not for this Python")
    found = distribution(pin.name)
    assert found.version in pin.specifier
    required = SpecifierSet(found.metadata.get("Requires-Python", ""))
    versions = [own for own in ("3.11.0", "3.12.0", "3.13.0") if _is_for(pin, own)]
    assert all(version in required for version in versions), required


def _is_for(pin: Requirement, python: str) -> bool:
    return pin.marker is None or pin.marker.evaluate({"python_version": python[:4]})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """The names in a wheel that is built from a copy, so that no build folder is left behind or found."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("pseudolabel", "configs", "train"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist"), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def files_below(folder: Path, installed_as: str) -> set[str]:
    found = {file for pattern in DATA for file in folder.rglob(pattern) if "__pycache__" not in file.parts}
    return {f"{installed_as}/{file.relative_to(folder).as_posix()}" for file in found}


@pytest.mark.slow
def test_only_the_packages_are_at_top_level(wheel):
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pseudolabel", "pseudolabel_train"}


def test_every_module_and_data_file_is_in_the_wheel(wheel):
    expected = files_below(ROOT / "pseudolabel", "pseudolabel")
    expected |= files_below(ROOT / "configs" / "pipeline", "pseudolabel/pipelines")
    expected |= files_below(ROOT / "train" / "pseudolabel_train", "pseudolabel_train")
    expected |= files_below(ROOT / "configs" / "deeplabv2", "pseudolabel_train/configs")
    assert expected <= set(wheel)


def test_the_experiment_files_are_found_in_this_installation():
    shipped = {file.name for file in resources.files("pseudolabel.pipelines").iterdir() if file.name.endswith(".yaml")}
    assert shipped == {file.name for file in (ROOT / "configs" / "pipeline").glob("*.yaml")}
