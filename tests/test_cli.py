"""The command line: which command takes what, its help, and what it answers to mistakes."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pseudolabel import command_line
from pseudolabel.cli import COMMANDS
from pseudolabel.config import SECTIONS, Experiment
from pseudolabel.errors import SettingError
from pseudolabel.experiment_file import open_experiment
from pseudolabel.methods.registry import METHODS
from pseudolabel.options import COMMON, command_parser
from pseudolabel.shapes.dataset import write_shapes
from tests.e2e.commands import Outcome, call, expect, run

WITH_EXPERIMENT = [name for name, command in COMMANDS.items() if command.reads]
OWN_ARGUMENTS = {"evaluate": ("masks",), "reproduce": ("diffseg-1", "--data", "data"), "segment": ("photo.jpg",)}


def refused(*arguments: object) -> str:
    """The one line that answers a bad command line."""
    outcome = expect(2, call(*arguments))
    assert "Traceback" not in outcome.err
    return outcome.err.splitlines()[-1].removeprefix("error: ")


def options_in(outcome: Outcome) -> set[str]:
    return set(re.findall(r"^  (?:-h, )?--([a-z_.-]+)", outcome.out, re.MULTILINE))


@pytest.mark.parametrize("name", WITH_EXPERIMENT)
def test_a_command_takes_the_settings_that_it_reads(name: str) -> None:
    reads = set(COMMANDS[name].reads)
    known = {action.dest for action in command_parser(name, COMMANDS[name])._actions}
    assert reads <= known
    shown = options_in(expect(0, call(name, "--help-all")))
    taken = {setting for setting in shown if setting in known and setting not in OWN_ARGUMENTS}
    sections = {setting.partition(".")[0] for setting in taken} - {"help", "config", "quiet", "verbose"}
    for setting in ("source.max_pixels", "elbo.samples", "crf.iterations", "filter.prefixes", "work.workers"):
        assert (setting in shown) == COMMANDS[name].takes(setting)
    assert ("plugins" in sections) == ("method" in reads)


class Watched(Experiment):
    """An experiment that records which of its sections are read; copying it with `replace` does not count."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if sys._getframe(1).f_globals["__name__"] not in ("dataclasses", "pseudolabel.limits"):
            Watched.read.add(name)
        return super().__getattribute__(name)


@pytest.mark.slow
def test_commands_read_what_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in a chain on two images; what is refused on the command line is not read, and all that is taken is."""
    read_experiment = command_line.read_experiment
    monkeypatch.setattr(command_line, "read_experiment", lambda values: Watched(**vars(read_experiment(values))))
    data, captions = tmp_path / "data", tmp_path / "captions"
    write_shapes(data, train=0, val=2, seed=3)
    settings = {"source": {"path": str(data)}, "out": str(tmp_path / "out"), "captions": {"source": str(captions)}}
    (tmp_path / "my.yaml").write_text(json.dumps({**settings, "work": {"workers": 1}, "crf": {"iterations": 1}}))
    image = next((data / "JPEGImages").glob("*.jpg"))
    segment = (image, "--out", tmp_path / "segmented")
    own = {"evaluate": [("masks",)], "segment": [segment, (*segment, "--sharpen")]}
    for name in ("caption", "filter", "cams", "refine", "generate", "evaluate", "sheet", "segment"):
        Watched.read.clear()
        for arguments in own.get(name, [()]):
            expect(0, call(name, "--config", "shapes", "--config", tmp_path / "my.yaml", *arguments))
        taken = {setting.partition(".")[0] for setting in COMMANDS[name].reads} - {"method"}
        assert Watched.read & {*SECTIONS} - {"method", "plugins", *METHODS} == taken, name
        assert bool(Watched.read & {"method", "method_settings"}) == ("method" in COMMANDS[name].reads)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("evaluate", "masks", "--elbo.samples", "3"), "--elbo.samples"),
        (("evaluate", "masks", "--work.batch=3"), "--work.batch"),
        (("cams", "--crf", "none"), "--crf"),
        (("cams", "--crf.iterations", "3"), "--crf.iterations"),
        (("refine", "--source.path", "x"), "--source.path"),
        (("caption", "--out", "x"), "--out"),
        (("segment", "photo.jpg", "--source.path", "x"), "--source.path"),
    ],
)
def test_a_setting_that_a_command_does_not_read_is_refused(arguments: tuple[str, ...], option: str) -> None:
    assert refused(*arguments).startswith(f"{option}: this command does not read it; it reads ")


@pytest.mark.parametrize("name", WITH_EXPERIMENT)
def test_an_experiment_file_may_hold_all_settings_for_every_command(name: str, tmp_path: Path) -> None:
    """It means the same for all: what `--print_config` prints can be given to another command."""
    file = tmp_path / "changed.yaml"
    file.write_text("evaluate: {threshold: 0.5}\nelbo: {samples: 3}\ncrf: {iterations: 4}\nsource: {split: test}\n")
    printed = expect(0, call("generate", "--config", "shapes", "--config", file, "--print_config")).out
    assert all(f": {value}\n" in printed for value in (0.5, 3, 4, "test"))
    file.write_text(printed)
    assert printed in expect(0, call(name, *OWN_ARGUMENTS.get(name, ()), "--config", file, "--print_config")).out


@pytest.mark.parametrize("name", WITH_EXPERIMENT)
def test_the_short_help_shows_common_options(name: str) -> None:
    short, complete = (options_in(expect(0, call(name, option))) for option in ("-h", "--help-all"))
    assert short < complete
    settings = short - {"config", "help", "help-all", "quiet", "verbose"}
    assert {setting for setting in settings if "." in setting} <= set(COMMON)
    assert len(settings) <= 14


def test_the_short_help_shows_the_options_of_the_chosen_method() -> None:
    short = options_in(expect(0, call("cams", "-h")))
    assert "With --method NAME or --plugins FILE, --help also shows" in call("cams", "-h").out
    assert "With --method" not in call("refine", "-h").out
    for arguments in (("--method", "elbo"), ("--method=elbo",)):
        more = options_in(expect(0, call("cams", *arguments, "-h"))) - short
        assert {name.partition(".")[0] for name in more} == {"elbo"}
        assert "elbo.samples" in more


@pytest.mark.parametrize("option", ["--method", "--plugins", "--config"])
def test_an_option_without_its_value(option: str) -> None:
    assert refused("cams", option).startswith(f"argument {option}: expected ")


def test_the_version() -> None:
    assert re.fullmatch(r"pseudolabel \d+\.\d+\.\d+\n", expect(0, call("--version")).out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--diffseg.semantic", "maybe"), "--diffseg.semantic maybe: give true or false"),
        (("generate", "--model.dtype", "int8"), "--model.dtype int8: give one of auto, float32, float16, bfloat16"),
        (("generate", "--work.batch", "x"), "--work.batch x: give a whole number"),
        (("generate", "--crf.ignore_below", "x"), "--crf.ignore_below x: give a number"),
        (("generate", "--elbo.timesteps", "[1, x]"), "--elbo.timesteps x: give a list, such as [50, 100]"),
        (("generate", "--diffsegmenter.level_weights", "[3]"), "--diffsegmenter.level_weights [3]: give a mapping"),
        (("generate", "--diffsegmenter.level_weights", "{8:1}"), "--diffsegmenter.level_weights: give a mapping"),
        (("generate", "--diffsegmenter.level_weights", "x"), "--diffsegmenter.level_weights x: give a mapping, such"),
        (("generate", "--crf", "{a:1}"), "--crf {a:1}: no such file, and not a mapping of settings"),
        (("shapes", "--out", "x", "--val", "many"), "--val many: give a whole number"),
        (("evaluate", "boxes"), "KIND boxes: give one of cams, masks, segments"),
        (("evaluate",), "missing: KIND"),
        (("reproduce", "diffseg-1"), "missing: --data"),
        (("camz",), "no command 'camz'; did you mean 'cams'?"),
        (("cams", "--sauce.path", "x"), "unrecognized arguments: --sauce.path x; did you mean --source.path?"),
        (("cams", "--retry_failed"), "unrecognized arguments: --retry_failed; did you mean --retry-failed?"),
        (("cams", "--retry"), "unrecognized arguments: --retry; did you mean --"),
    ],
)  # fmt: skip
def test_command_line_errors_have_clear_messages(arguments: tuple[str, ...], message: str) -> None:
    assert refused(*arguments).startswith(message)


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("freesegdiff.factors", "[32]", "`freesegdiff.factors` is now called `freesegdiff.strides`"),
        ("filter.leads", "[a]", "`filter.leads` is now called `filter.prefixes`"),
        (
            "diffsegmenter.self_attention_factors",
            "[8]",
            "`diffsegmenter.self_attention_factors` is now called `diffsegmenter.self_attention_strides`",
        ),
        ("diffsegmenter.self_attention", "factors", "`diffsegmenter.self_attention` factors is now called strides"),
        ("diffseg.fit", "squash", "`diffseg.fit` squash is now called stretch"),
    ],
)
def test_renamed_settings_are_reported(old: str, value: str, new: str, tmp_path: Path) -> None:
    expected = re.sub("`([a-z_.]+)`", r"--\1", new)
    assert refused("reproduce", "diffseg-1", "--data", "x", f"--{old}", value) == expected
    section, _, name = old.partition(".")
    file = tmp_path / "old.yaml"
    file.write_text(f"{section}:\n  {name}: {value}\n")
    assert refused("evaluate", "masks", "--config", file) == expected
    with pytest.raises(SettingError, match=re.escape(new)):
        open_experiment(str(file))


def test_an_unknown_setting_in_a_file_gets_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("diffsegmenter:\n  class_wait: 1.0\n")
    message = "there is no setting `diffsegmenter.class_wait`; did you mean"
    assert refused("cams", "--config", file) == f"{message} --diffsegmenter.class_weight?"
    with pytest.raises(SettingError, match=rf"{message} `diffsegmenter\.class_weight`\?"):
        open_experiment(str(file))


def test_quiet_and_verbose(tmp_path: Path) -> None:
    made = call("shapes", "--out", tmp_path / "data", "--train", 0, "--val", 2)
    assert "shapes: 2/2 samples" in made.err
    assert call("shapes", "--out", tmp_path / "data", "--train", 0, "--val", 2, "--quiet") == Outcome(0, made.out, "")
    missing = ("verify", tmp_path / "absent")
    failing = ("cams", "--source.path", tmp_path / "absent")
    assert "Traceback" not in expect(1, call(*failing, "--quiet")).err
    assert "Traceback" in expect(1, call(*failing, "--verbose")).err
    assert call(*missing).err in call(*missing, "--verbose").err


def test_quiet_leaves_the_result_and_warnings(few_shapes: Path, tmp_path: Path) -> None:
    images = sorted((few_shapes / "JPEGImages").glob("*.jpg"))
    shutil.copytree(few_shapes, tmp_path / "data")
    run = ("cams", "--config", "shapes", "--source.path", tmp_path / "data", "--out", tmp_path / "out")
    done = expect(0, call(*run, "--quiet"))
    assert done.err == ""
    assert json.loads(done.out)["statuses"] == {"ok": len(images)}
    (tmp_path / "data" / "JPEGImages" / images[0].name).unlink()
    failed = expect(3, call(*run, "--out", tmp_path / "other", "--quiet"))
    assert json.loads(failed.out)["statuses"] == {"missing": 1, "ok": len(images) - 1}
    assert failed.err.startswith("  1 missing:\n    ")
    assert failed.err.count(images[0].name) == 1


def test_the_help_of_all_options(tmp_path: Path) -> None:
    assert call("--help-all") == call("--help")
    assert "--diffsegmenter.class_weight" in expect(0, call("generate", "--help-all")).out
    assert "(default: null)" not in expect(0, call("segment", "--help-all")).out


def test_paragraphs_of_the_help_stay_paragraphs() -> None:
    shown = expect(0, call("segment", "-h")).out
    assert "\n\nFor example: pseudolabel segment photo.jpg" in shown
    assert "\n\nNAME is the image's path" in shown


def test_help_imports_no_torch() -> None:
    outcome = run("-h", PYTHONPROFILEIMPORTTIME="1")
    assert outcome.status == 0
    assert "jsonargparse" in outcome.err
    assert not re.search(r"\| +(torch|diffusers|transformers|accelerate)\n", outcome.err)


ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("configs/**/*.yaml"),
    *ROOT.glob("configs/**/*.py"),
]
COMMAND = re.compile(r"pseudolabel ([a-z-]+)((?: [^\s`#]+)*)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_have_existing_options(path: Path) -> None:
    text = re.sub(r"\\\n#?", " ", path.read_text())
    for name, rest in COMMAND.findall(re.sub(r" +", " ", text)):
        if name in COMMANDS and "--plugins" not in rest:  # whose methods have options of their own
            parser = command_parser(name, COMMANDS[name])
            given = set(re.findall(r"(?<= )--[\w.-]+", rest))
            taken = {
                option for action in parser._actions if action not in parser.unread for option in action.option_strings
            }
            assert given <= taken, (name, rest)


# The command line itself; `watchdog`, which prints when nothing can be translated any more; `doctor`, which prints
# commands; and a config of MMEngine, whose own parser takes an option.
COMMAND_LINE = {
    "cli.py",
    "cli_exchange.py",
    "cli_inspect.py",
    "settings_parser.py",
    "command_line.py",
    "options.py",
    "config.py",
    "runtime/terminal.py",
}
WITH_OPTIONS = COMMAND_LINE | {"runtime/watchdog.py", "stages/doctor.py"}


def test_messages_name_settings_instead_of_options() -> None:
    parsers = [command_parser(name, command) for name, command in COMMANDS.items()]
    options = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    found = []
    for package in (ROOT / "pseudolabel", ROOT / "train" / "pseudolabel_train"):
        for path in package.rglob("*.py"):
            if str(path.relative_to(package)) not in WITH_OPTIONS:
                texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
                named = {word for text in texts for word in re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z]", str(text))}
                found += [(path.name, option) for option in named & options - {"--help"}]
    assert not found
