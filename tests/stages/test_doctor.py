import os
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import packaging
import pytest

import pseudolabel
from pseudolabel.cli import main
from pseudolabel.io.shipped import NAME, resolve
from pseudolabel.stages.doctor import (
    cache_folder,
    check_crf,
    check_models,
    check_packages,
    check_storage,
    diagnose,
    installed_requirements,
)


def test_a_complete_installation(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "Everything required is here." in output
    for name in ("torch", "diffusers", "CPU", "DenseCRF", "Shapes models"):
        assert f" ok      {name}: " in output


def test_a_checkpoint_is_loaded_and_timed(capsys):
    assert main(["doctor", "--model", "shapes_standard"]) == 0
    lines = capsys.readouterr().out.partition("Model shapes_standard\n")[2].splitlines()
    found = dict(line.removeprefix("  ok      ").split(": ", 1) for line in lines if line.startswith("  ok"))
    assert found["files"] == "ship with the package"
    assert found["loading"].startswith("DiffusionModel('shapes_standard', 128 x 128 pixels, ")
    assert found["loading"].endswith("which predicts v_prediction")
    assert found["grids"].startswith("cross-attention 32 x 32, 16 x 16, 8 x 8; self-attention 32 x 32")
    assert 0 < float(found["memory"].split()[0]) < 100
    assert "1,000 images of 1.5 classes at 4 timesteps take about 0:" in found["time"]


def test_a_checkpoint_that_cannot_be_used_is_an_error(tmp_path, capsys):
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert f"  missing loading: cannot load the diffusion model '{tmp_path}' (`model.name`)" in shown
    assert f"  ok      files: 0.0 GiB in '{tmp_path}'" in shown
    diagnosis = diagnose("nobody/nothing", requirements=[])
    assert diagnosis.sections["Model nobody/nothing"][0].found == "not in the local cache; loading downloads them"


def test_requirements_of_the_installed_package():
    assert any(text.startswith("torch") for text in installed_requirements())


def test_missing_and_old_packages_get_an_install_command():
    diagnosis = diagnose(requirements=["packaging>=999", "surely-not-installed>=1,<2", "rich"])
    assert diagnosis.exit_status == 1
    lines = [line.strip() for line in diagnosis.lines()]
    assert f"missing packaging: {metadata.version('packaging')} (wants >=999)" in lines
    assert "missing surely-not-installed: not installed (wants <2,>=1)" in lines
    commands = [shlex.split(line) for line in lines if " -m pip install " in line]
    assert [sys.executable, "-m", "pip", "install", "packaging>=999"] in commands
    assert [sys.executable, "-m", "pip", "install", "surely-not-installed<2,>=1"] in commands


def test_a_missing_extra_is_a_note_with_one_command():
    extras = ['surely-not-installed>=1; extra == "more"', 'neither-is-this; extra == "more"', 'rich; extra == "fine"']
    fine, more = check_packages(extras)
    assert (fine.name, fine.state) == ("extra fine", "ok")
    assert (more.name, more.state) == ("extra more", "note")
    assert shlex.split(more.hint)[1:] == ["-m", "pip", "install", "neither-is-this", "surely-not-installed>=1"]


def test_requirements_for_other_platforms_are_left_out():
    assert list(check_packages(['surely-not-installed; sys_platform == "none"'])) == []


@pytest.mark.parametrize(("requirement", "state"), [("torch", "ok"), ("torch[opt-einsum]>=999", "missing")])
def test_a_package_with_its_extras(requirement, state):
    assert [finding.state for finding in check_packages([requirement])] == [state]


def test_only_packaging_is_needed(tmp_path):
    """A real interpreter without site-packages: no torch, no numpy, no pydensecrf, no metadata."""
    (tmp_path / "packaging").symlink_to(Path(packaging.__file__).parent)
    (tmp_path / "pseudolabel").symlink_to(Path(pseudolabel.__file__).parent)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + (
        "from pseudolabel.stages.doctor import diagnose\ndiagnosis = diagnose(requirements=['torch>=2.6'])\n"
        "print(*diagnosis.lines(), sep='\\n')\nsys.exit(diagnosis.exit_status)"
    )
    # -I and -S: neither the environment's nor the virtual environment's packages.
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "torch does not import" in run.stdout
    assert "DenseCRF: does not import" in run.stdout
    assert "pseudolabel: not installed" in run.stdout
    assert "-m pip install 'torch>=2.6'" in run.stdout


def test_the_crf_check_runs():
    assert check_crf().state == "ok"


def test_incomplete_models(tmp_path):
    folder = tmp_path / "pseudolabel" / "shapes" / "models"
    shutil.copytree(Path(resolve(NAME, "diffusion")).parent, folder)
    assert check_models(folder).state == "ok"
    shutil.rmtree(folder / "shapes" / "vae")
    (folder / "shapes-text" / "clip" / "model.safetensors").unlink()
    finding = check_models(folder)
    assert finding.state == "missing"
    assert finding.found == f"{folder} lacks shapes/vae, shapes-text/clip/model.safetensors"
    assert finding.hint == "Install the package again: this copy is incomplete."


@pytest.mark.slow
def test_a_missing_model_in_a_checkout_is_restored_by_git(tmp_path):
    folder = tmp_path / "pseudolabel" / "shapes" / "models"
    shutil.copytree(Path(resolve(NAME, "diffusion")).parent, folder)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    for arguments in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, env=environment)
    shutil.rmtree(folder / "shapes" / "unet")
    finding = check_models(folder)
    assert finding.state == "missing"
    subprocess.run(shlex.split(finding.hint), check=True, env=environment)
    assert check_models(folder).state == "ok"


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(file / "hub"))
    assert cache_folder() == file / "hub"
    finding, _working_directory = check_storage()
    assert finding.state == "missing"
    assert "cannot be written" in finding.found
    assert "HF_HOME" in finding.hint
