"""Experiment files (YAML): the user's own, or those that ship by name."""

import difflib
from importlib import resources
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError

_SHIPPED = {"config": "pseudolabel.pipelines", "crf": "pseudolabel.crf.presets"}


def resolve_shipped(setting: str, value: str) -> str:
    """The path of the file that ships under the name `value` for `config` or `crf`, where no such file is here."""
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
    if (
        setting not in _SHIPPED
        or Path(resolve_shipped(setting, value)).is_file()
        or (setting == "crf" and ":" in value)
    ):
        return
    folder = resources.files(_SHIPPED[setting])
    names = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"those that ship are {', '.join(names)}"
    raise SettingError(f"`{setting}` {value}: no such file, and none of that name ships; {hint}")


def load_experiment(name: str) -> Experiment:
    """The experiment of a YAML file, or of one that ships, such as `shapes`.

    Raises:
        SettingError: if there is no such file, or it holds a setting that is none.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, as_group=False, sub_configs=True, skip={"own_settings"})
    check_shipped("config", name)
    path = resolve_shipped("config", name)
    try:
        settings = parser.instantiate(parser.parse_path(path))
    except (ArgumentError, OSError, TypeError) as error:
        raise SettingError(f"'{name}' is no experiment file: {error}") from error
    return Experiment(**settings)
