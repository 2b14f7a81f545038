"""What a user may get wrong: one message, no traceback."""

import json
from pathlib import Path

import pytest

from pseudolabel.cli import COMMANDS
from pseudolabel.options import COMMON
from tests.e2e.commands import call, expect, run
from tests.e2e.conftest import Shapes
from tests.e2e.forks import run_fork

# What is wrong with a value itself; what is wrong with what it names.
WRONG_VALUES = [
    (("--vocabulary", "vocc"), "vocc"),
    (("--diffsegmenter.level_weights", "{3: 1.0}"), "diffsegmenter.level_weights {3: 1.0}"),
    (("--diffsegmenter.timesteps", "[2000]"), "diffsegmenter.timesteps [2000]"),
    (("--work.unit", "0"), "--work.unit 0: give at least 1"),
    (("--work.batch", "0"), "--work.batch 0: give at least 1"),
    (("--work.loaders=-1",), "--work.loaders -1: give at least 1"),
    (("--out", "nonsense://bucket/run"), "nonsense"),
]
UNUSABLE = [
    (("--source.path", "/nowhere"), "no folder '/nowhere/JPEGImages'"),
    (("--source.path", ""), "--source.path"),
    (("--source.split", "trainn"), "--source.split can be train, trainval, val"),
    (("--source.labels", "/nowhere.json"), "/nowhere.json"),
    (("--source.kind", "table"), "--source.path"),
    (("--model.image_size", "100"), "--model.image_size 100 is not a multiple of"),
    (("--captions.source", "/nowhere"), "no captions in '/nowhere'"),
]


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [*((*case, 2) for case in WRONG_VALUES), *((*case, 1) for case in UNUSABLE)],
)
def test_an_invalid_setting(
    shapes: Shapes, tmp_path: Path, arguments: tuple[str, ...], message: str, status: int
) -> None:
    outcome = expect(status, call("cams", *shapes.at(tmp_path / "out"), *arguments))
    assert outcome.is_clean_error(), outcome.err
    assert message in outcome.err
    assert not list((tmp_path / "out").glob("**/*.tar"))


def test_an_invalid_preset_and_number(shapes: Shapes, tmp_path: Path) -> None:
    changed = ("--config=shapes", "--crf=clip-es", "--crf.iterations=-1")
    outcome = expect(2, call("generate", *shapes.at(tmp_path / "out"), *changed))
    assert "--crf.iterations -1: give at least 0" in outcome.err


def test_a_missing_model(shapes: Shapes, tmp_path: Path) -> None:
    """In a process of its own, which knows from the start that there is no network."""
    outcome = expect(1, run_fork("cams", *shapes.at(tmp_path), "--model.name", "nobody/nothing"))
    assert outcome.is_clean_error(), outcome.err
    assert "cannot load the diffusion model 'nobody/nothing' (--model.name)" in outcome.err


def test_a_folder_without_a_model(shapes: Shapes, tmp_path: Path) -> None:
    outcome = expect(1, call("generate", *shapes.at(tmp_path), "--model.name", tmp_path))
    assert outcome.is_clean_error()
    assert "holds unet/, vae/, text_encoder/" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), 'expected "command" to be one of'),
        (("cams", "--confg=shapes"), "did you mean --config?"),
        (("verify", "--folder", "x"), "unrecognized arguments: --folder"),
        (("cams", "--diffsegmenter.class_weight", "heavy"), "diffsegmenter.class_weight"),
        (("cams", "--model.dtype", "float8"), "model.dtype"),
        (("cams", "--config", "/nowhere.yaml"), "/nowhere.yaml"),
        (
            ("cams", "--config", "shape"),
            "--config shape: no such file, and none of that name ships; did you mean 'shapes'",
        ),
        (("refine", "--crf=clip"), "--crf clip: no such file, and none of that name ships; did you mean 'clip-es'"),
        (("shapes",), "missing: --out"),
        (("verify",), "missing: FOLDER"),
    ],
)
def test_an_invalid_command_line(arguments: tuple[str, ...], message: str) -> None:
    outcome = expect(2, call(*arguments))
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= 8, outcome.err  # not the usage of a hundred settings


def test_a_config_file_that_is_not_yaml(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("diffsegmenter: [\n")
    assert "Traceback" not in expect(2, call("cams", "--config", config)).err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    outcome = expect(0, call(command, "--help"))
    assert outcome.out.startswith(f"usage: pseudolabel {command}")
    for setting in set(COMMON) - {"out"}:
        assert (f"--{setting} " in outcome.out) == COMMANDS[command].takes(setting)
    if command in ("cams", "refine", "generate"):
        assert "--retry-failed" in outcome.out


def test_the_module_runs_without_arguments() -> None:
    outcome = run()
    assert outcome.status == 2
    assert "pseudolabel --help" in outcome.err
    assert "Traceback" not in outcome.err


def test_the_module_lists_its_commands() -> None:
    outcome = expect(0, run("--help"))
    assert all(f"\n    {command} " in outcome.out for command in COMMANDS)


def test_settings_can_be_printed(shapes: Shapes, tmp_path: Path) -> None:
    """What `--print_config` prints is a config file that means the same."""
    printed = expect(0, call("cams", *shapes.at(tmp_path), "--diffsegmenter.class_weight", "1.5", "--print_config"))
    config = tmp_path / "printed.yaml"
    config.write_text(printed.out)
    again = expect(0, call("cams", "--config", config, "--print_config"))
    assert again.out == printed.out
    assert "class_weight: 1.5" in printed.out


def test_nothing_to_verify(tmp_path: Path) -> None:
    assert f"there is no folder '{tmp_path}/absent'" in expect(1, call("verify", tmp_path / "absent")).err
    empty = expect(1, call("verify", tmp_path))
    assert f"'{tmp_path}' holds no shards of this package, nor do cams, masks, segments, filter, captions" in empty.err
    assert empty.out == ""


def test_shapes_do_not_overwrite_other_data(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    outcome = expect(1, call("shapes", "--out", tmp_path, "--train", "1", "--val", "1"))
    assert outcome.is_clean_error()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_users_config_file(shapes: Shapes, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    settings = {
        "vocabulary": "shapes",
        "model": {"name": "shapes"},
        "source": {"path": str(shapes.data), "split": "val"},
    }
    config.write_text(json.dumps({**settings, "out": str(tmp_path / "out"), "work": {"unit": 2}}))
    assert "cams: all 2 samples done" in expect(0, call("cams", "--config", config, "--source.limit", "2")).err


def test_a_folder_named_like_a_shipped_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (
        "no folder 'shapes/JPEGImages'" in expect(1, call("cams", "--config", "shapes", "--source.path", "shapes")).err
    )
