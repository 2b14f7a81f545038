"""Experiment files (YAML): the user's own, or those that ship by name."""

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError

from pseudolabel.config import SECTIONS, Experiment
from pseudolabel.errors import SettingError
from pseudolabel.methods.plugins import load_plugins
from pseudolabel.settings_parser import SettingsParser, instantiate, read_experiment, unknown_setting

Config = str | os.PathLike[str] | Experiment
"""The path of an experiment file (YAML), the name of one that ships, such as `shapes`, or an experiment."""

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


def open_experiment(config: Config, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment with some settings replaced; files in `plugins` are run first, so that their methods are known.

    Args:
        config: a file, the name of one that ships, or an experiment.
        overrides: values by dotted name, such as `{"source.path": "VOC2012", "diffsegmenter.timesteps": [50]}`.

    Raises:
        SettingError: if there is no such file or setting, or a value does not fit; the message names it.
    """
    values = {name: _plain(value) for name, value in (overrides or {}).items()}
    load_plugins([*_plugins_of(config), *values.get("plugins", [])])
    if isinstance(config, Experiment) and not values:
        return config
    parser = SettingsParser(exit_on_error=False)
    parser.add_settings()
    settings = _parse(config, parser)
    for name, value in values.items():
        _check_name(name, parser)
        if isinstance(value, str):
            check_shipped(name, value)
            value = resolve_shipped(name, value)
        try:
            settings = parser.parse_object({name: value}, settings)
        except (ArgumentError, TypeError) as error:
            raise SettingError(str(error)) from error
    return read_experiment(instantiate(parser, settings))


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _plugins_of(config: Config) -> list[str]:
    if isinstance(config, Experiment):
        return config.plugins
    check_shipped("config", os.fspath(config))
    return named_plugins(resolve_shipped("config", os.fspath(config)))


def _parse(config: Config, parser: SettingsParser) -> Any:
    if isinstance(config, Experiment):
        return parser.parse_object(_leaves(config))
    try:
        return parser.parse_path(resolve_shipped("config", os.fspath(config)))
    except (ArgumentError, OSError, TypeError, ValueError) as error:
        raise SettingError(f"'{os.fspath(config)}' is not an experiment file: {error}") from error


def _leaves(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment by dotted name."""

    def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if not is_dataclass(value):
            yield name, value
            return
        for field in fields(value):
            yield from leaves(f"{name}.{field.name}", getattr(value, field.name))

    values = {name: getattr(experiment, name) for name in SECTIONS} | experiment.own_settings
    return dict(leaf for name, value in values.items() for leaf in leaves(name, value))


def _check_name(name: str, parser: SettingsParser) -> None:
    known = {action.dest for action in parser._actions}
    if name not in known and not any(other.startswith(f"{name}.") for other in known):
        raise SettingError(unknown_setting(name, parser))
