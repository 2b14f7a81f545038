import math
from dataclasses import replace
from typing import Any

import pytest

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.limits import LIMITS, numbers_of


def experiment(name: str, value: Any) -> Experiment:
    """The defaults with one other value."""

    def change(settings: Any, path: list[str]) -> Any:
        inner = change(getattr(settings, path[0]), path[1:]) if len(path) > 1 else value
        return replace(settings, **{path[0]: inner})

    return change(Experiment(), name.split("."))


def test_every_number_has_limits_and_the_defaults_are_in_range() -> None:
    assert {name for name, _ in numbers_of(Experiment())} == set(LIMITS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("work.batch", 0, "`work.batch` 0: give at least 1"),
        ("work.loaders", -1, "`work.loaders` -1: give at least 1"),
        ("work.workers", -2, "`work.workers` -2: give at least 0"),
        ("captions.batch", 0, "`captions.batch` 0: give at least 1"),
        ("diffsegmenter.timesteps", [], "`diffsegmenter.timesteps` []: give at least 0"),
        ("diffsegmenter.level_weights", {64: -0.5}, "`diffsegmenter.level_weights` {64: -0.5}: give at least 0"),
        ("diffsegmenter.class_weight", math.nan, "`diffsegmenter.class_weight` nan: give at least 0"),
        ("elbo.temperature", 0.0, "`elbo.temperature` 0.0: give more than 0"),
        ("crf.ignore_below", 95, "`crf.ignore_below` 95: give at least 0 and at most 1"),
        ("freesegdiff.crf.gaussian_sxy", 0.0, "`freesegdiff.crf.gaussian_sxy` 0.0: give more than 0"),
        ("evaluate.threshold", 0.455, "`evaluate.threshold` 0.455: give at least 0 and at most 1, in steps of 0.01"),
        ("evaluate.threshold", math.inf, "`evaluate.threshold` inf: give at least 0 and at most 1, in steps of 0.01"),
        ("filter.image_threshold", 97.0, "`filter.image_threshold` 97.0: give at least -1 and at most 1"),
    ],
)
def test_an_invalid_number_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        experiment(name, value)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [("evaluate.threshold", 0.07), ("evaluate.threshold", 1.0), ("diffsegmenter.self_attention_strides", []),
     ("work.seed", -5), ("crf.iterations", 0)],
)  # fmt: skip
def test_limits_are_inclusive(name: str, value: Any) -> None:
    assert dict(numbers_of(experiment(name, value)))[name] == value
