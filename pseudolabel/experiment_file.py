"""Experiment files (YAML): the user's own, or those that ship by name."""

from importlib import resources
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError

_SHIPPED = {"--config": "pseudolabel.pipelines", "--crf": "pseudolabel.refine.presets"}


def resolve_shipped(option: str, value: str) -> str:
    """The path of the file that ships under the name `value` for `--config` or `--crf`, where no such file is here."""
    if option not in _SHIPPED or Path(value).exists():
        return value
    shipped = resources.files(_SHIPPED[option]) / f"{value}.yaml"
    return str(shipped) if shipped.is_file() else value


def load_experiment(name: str) -> Experiment:
    """The experiment of a YAML file, or of one that ships, such as `shapes`.

    Raises:
        SettingError: if there is no such file, or it holds a setting that is none.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, as_group=False, sub_configs=True)
    path = resolve_shipped("--config", name)
    try:
        settings = parser.instantiate(parser.parse_path(path))
    except (ArgumentError, OSError, TypeError) as error:
        raise SettingError(f"'{name}' is no experiment file: {error}") from error
    return Experiment(**settings)
