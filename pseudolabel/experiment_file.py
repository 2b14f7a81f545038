"""Experiment files (YAML): the user's own, or those that ship by name."""

import difflib
from contextlib import suppress
from importlib import resources
from pathlib import Path

import yaml
from jsonargparse import ArgumentError

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.settings_parser import SettingsParser, read_experiment

_SHIPPED = {"config": "pseudolabel.pipelines", "crf": "pseudolabel.crf.presets"}


def resolve_shipped(setting: str, value: str) -> str:
    """The path of the file that ships under the name `value` for `config` or `crf`, unless such a file is here.

    Other settings' values come back unchanged.
    """
    if setting not in _SHIPPED or Path(value).is_file():
        return value
    shipped = resources.files(_SHIPPED[setting]) / f"{value}.yaml"
    return str(shipped) if shipped.is_file() else value


def check_shipped(setting: str, value: str) -> None:
    """Make sure that there is an experiment file `value`, or one that ships under that name.

    Raises:
        SettingError: if there is neither; the message lists those that ship.
    """
    # `crf` also takes a mapping as text.
    is_mapping = setting == "crf" and ":" in value
    if setting not in _SHIPPED or is_mapping or Path(resolve_shipped(setting, value)).is_file():
        return
    folder = resources.files(_SHIPPED[setting])
    names = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"those that ship are {', '.join(names)}"
    raise SettingError(f"`{setting}` {value}: no such file, and none of that name ships; {hint}")


def named_plugins(path: str) -> list[str]:
    """The `plugins` of an experiment file; empty for a file that cannot be read, which parsing reports."""
    with suppress(OSError, ValueError, yaml.YAMLError, AttributeError):
        return list(yaml.safe_load(Path(path).read_text("utf-8")).get("plugins") or [])
    return []


def load_experiment(name: str) -> Experiment:
    """The experiment of a YAML file, or of one that ships, such as `shapes`.

    Raises:
        SettingError: if there is no such file, or it holds an unknown setting or a value that does not fit.
    """
    parser = SettingsParser(exit_on_error=False)
    parser.add_settings()
    check_shipped("config", name)
    path = resolve_shipped("config", name)
    try:
        return read_experiment(parser.instantiate(parser.parse_path(path)))
    except (ArgumentError, OSError, TypeError) as error:
        raise SettingError(f"'{name}' is not an experiment file: {error}") from error
