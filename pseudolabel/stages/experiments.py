"""Experiments for Python: a file, one that ships, or an `Experiment`, with settings replaced by their dotted names."""

import difflib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.experiment_file import check_shipped, resolve_shipped
from pseudolabel.methods.plugins import load_plugins
from pseudolabel.methods.registry import METHODS

Config = str | os.PathLike[str] | Experiment
"""The path of an experiment file (YAML), the name of one that ships, such as `shapes`, or an experiment."""

OWN = "own_settings"


def open_experiment(config: Config, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment with some settings replaced; files in `plugins` are run first, so that their methods are known.

    Args:
        config: a file, the name of one that ships, or an experiment.
        overrides: values by dotted name, such as `{"source.path": "VOC2012", "diffsegmenter.timesteps": [50]}`.

    Raises:
        SettingError: if there is no such file or setting, or a value does not fit; the message names it.
    """
    values = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in _given(overrides)}
    named = config.plugins if isinstance(config, Experiment) else _named_plugins(os.fspath(config))
    load_plugins([*named, *values.get("plugins", [])])
    parser = _parser()
    _check_names(values)
    settings = _read(parser, config)
    for name, value in values.items():
        if isinstance(value, str):
            check_shipped(name, value)
            value = resolve_shipped(name, value)
        try:
            settings = parser.parse_object({name: value}, settings)
        except (ArgumentError, TypeError) as error:
            raise SettingError(f"`{name}` {value!r}: {error}") from error
    return _build(parser, settings)


def _given(overrides: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    return list((overrides or {}).items())


def _named_plugins(name: str) -> list[str]:
    """The plugins that an experiment file names; whatever else is in it is parsed once their settings are known."""
    check_shipped("config", name)
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return list(yaml.safe_load(Path(resolve_shipped("config", name)).read_text("utf-8")).get("plugins") or [])
    return []


def _read(parser: ArgumentParser, config: Config) -> Any:
    try:
        if isinstance(config, Experiment):
            return parser.parse_object(_flat(config))
        return parser.parse_path(resolve_shipped("config", os.fspath(config)))
    except (ArgumentError, OSError, TypeError, ValueError) as error:
        name = "the experiment" if isinstance(config, Experiment) else f"'{os.fspath(config)}'"
        raise SettingError(f"{name} cannot be used: {error}") from error


def _parser() -> ArgumentParser:
    """Knows every setting, those of registered methods included, with their types."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, as_group=False, sub_configs=True, skip={OWN})
    for method in _own_methods():
        parser.add_class_arguments(METHODS[method].settings, method)
    return parser


def _own_methods() -> list[str]:
    """The methods whose settings are no field of `Experiment`."""
    return [name for name in METHODS if name not in Experiment.__dataclass_fields__]


def _build(parser: ArgumentParser, settings: Any) -> Experiment:
    values = dict(parser.instantiate(settings))
    own = {name: values.pop(name) for name in _own_methods()}
    return Experiment(**values, own_settings=own)


def _flat(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment by dotted name, ready to be parsed."""
    values = {field.name: getattr(experiment, field.name) for field in fields(experiment) if field.name != OWN}
    return {
        name: leaf for key, value in (values | experiment.own_settings).items() for name, leaf in _leaves(key, value)
    }


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if not is_dataclass(value):
        return [(name, value)]
    return [leaf for field in fields(value) for leaf in _leaves(f"{name}.{field.name}", getattr(value, field.name))]


def _check_names(values: Mapping[str, Any]) -> None:
    defaults = Experiment(own_settings={name: METHODS[name].settings() for name in _own_methods()})
    known = list(_flat(defaults))
    for name in values:
        if name in known or any(other.startswith(f"{name}.") for other in known):
            continue
        last = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
        near = difflib.get_close_matches(name, known, n=1) or last
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise SettingError(f"there is no setting `{name}`{hint}")
