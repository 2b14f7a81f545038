"""The method of an experiment."""

from typing import Any

from pseudolabel.config import Experiment
from pseudolabel.methods.registry import Method, find_method
from pseudolabel.records import Kind


def chosen_method(experiment: Experiment) -> tuple[Method, Any]:
    """The experiment's method and its settings.

    Raises:
        SettingError: if there is no such method.
    """
    method = find_method(experiment.method)
    return method, experiment.method_settings(method.name, method.settings)


def produced_kind(experiment: Experiment) -> Kind:
    """What the experiment's method writes."""
    method, settings = chosen_method(experiment)
    return method.kind(settings)
