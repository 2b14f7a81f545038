"""The ranges of numeric settings; ranges that depend on the model are checked when it is loaded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args

from pseudolabel.errors import SettingError

STEPS = 100  # thresholds are swept in steps of 1 / STEPS


@dataclass(frozen=True)
class Limits:
    """A range of finite numbers; for lists and mappings, a range of each of their values.

    Attributes:
        least, most: the smallest and the largest number; None for no bound.
        above: whether `least` itself is excluded.
        filled: whether a list or mapping needs at least one number.
        steps: numbers are multiples of 1 / `steps`; 0 for any.
    """

    least: float | None = None
    most: float | None = None
    above: bool = False
    filled: bool = True
    steps: int = 0

    def contains(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if isinstance(value, (list, tuple, dict)):
            numbers = list(value.values() if isinstance(value, dict) else value)
            return all(map(self._contains, numbers)) and bool(numbers or not self.filled)
        return self._contains(value)

    def _contains(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.least is None or number > self.least or (number == self.least and not self.above))
            and (self.most is None or number <= self.most)
            and (not self.steps or abs(number * self.steps - round(number * self.steps)) < 1e-6)
        )

    def __str__(self) -> str:
        """Such as `at least 1`."""
        bounds = [
            f"{'more than' if self.above else 'at least'} {self.least:g}" if self.least is not None else "",
            f"at most {self.most:g}" if self.most is not None else "",
        ]
        steps = [f"in steps of {1 / self.steps:g}"] if self.steps else []
        return " and ".join(filter(None, bounds)) + "".join(f", {step}" for step in steps) or "a finite number"


ANY, FROM_0, FROM_1, ABOVE_0 = Limits(), Limits(0), Limits(1), Limits(0, above=True)
SHARE, COSINE = Limits(0, 1), Limits(-1, 1)
NUMBERS = Limits(0, filled=False)  # of layers or heads

_CRF = {
    "iterations": FROM_0,
    "gaussian_sxy": ABOVE_0,
    "gaussian_weight": FROM_0,
    "bilateral_sxy": ABOVE_0,
    "bilateral_srgb": ABOVE_0,
    "bilateral_weight": FROM_0,
    "background_value": FROM_0,
    "ignore_below": SHARE,
}
LIMITS = {
    "source.max_pixels": FROM_1,
    "source.limit": FROM_0,
    "model.image_size": FROM_0,
    "model.lora_scale": ANY,
    "diffsegmenter.timesteps": FROM_0,
    "diffsegmenter.level_weights": FROM_0,
    "diffsegmenter.cross_layers": NUMBERS,
    "diffsegmenter.cross_heads": NUMBERS,
    "diffsegmenter.self_attention_strides": Limits(1, filled=False),
    "diffsegmenter.self_layers": NUMBERS,
    "diffsegmenter.self_heads": NUMBERS,
    "diffsegmenter.affinity_value": FROM_0,
    "diffsegmenter.iterations": FROM_1,
    "diffsegmenter.class_weight": FROM_0,
    "elbo.timesteps": FROM_0,
    "elbo.samples": FROM_1,
    "elbo.temperature": ABOVE_0,
    "diffseg.timestep": FROM_0,
    "diffseg.self_layers": NUMBERS,
    "diffseg.anchors": FROM_1,
    "diffseg.iterations": FROM_1,
    "diffseg.threshold": FROM_0,
    "diffseg.clusters": FROM_0,
    "diffseg.cut_power": ABOVE_0,
    "diffseg.cut_threshold": FROM_0,
    "freesegdiff.timestep": FROM_0,
    "freesegdiff.strides": FROM_1,
    "freesegdiff.side": FROM_1,
    "freesegdiff.clusters": FROM_1,
    "freesegdiff.restarts": FROM_1,
    "freesegdiff.certainty": SHARE,
    "captions.max_new_tokens": FROM_1,
    "captions.max_length": FROM_0,
    "captions.beams": FROM_1,
    "captions.batch": FROM_1,
    "filter.image_threshold": COSINE,
    "filter.noun_threshold": COSINE,
    "work.unit": FROM_1,
    "work.batch": FROM_1,
    "work.seed": ANY,
    "work.workers": FROM_0,
    "work.loaders": FROM_1,
    "evaluate.threshold": Limits(0, 1, steps=STEPS),
    **{f"{prefix}.{name}": limits for prefix in ("crf", "freesegdiff.crf") for name, limits in _CRF.items()},
}

_NUMBERS = (int, float, list[int], list[float], dict[int, float])  # a setting may also have words instead


def check_numbers(experiment: Any) -> None:
    """Check every number of an experiment.

    Raises:
        SettingError: names the first setting out of range, its value, and the range.
    """
    for name, value in numbers_of(experiment):
        limits = LIMITS.get(name)
        if limits is not None and not limits.contains(value):
            raise SettingError(f"`{name}` {value}: give {limits}")


def numbers_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of every setting of a dataclass that is a number, or a list or mapping of numbers."""
    for field in fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if is_dataclass(value):
            yield from numbers_of(value, f"{name}.")
        elif not isinstance(value, str) and {field.type, *get_args(field.type)} & {*_NUMBERS}:
            yield name, value
