"""Predictors that do not give back what they were given."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.errors import MethodError, SampleError
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import Context, Method
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.vocabulary import load_vocabulary

SAMPLES = [Sample(key, Image.new("RGB", (6, 4)), (1, 2)) for key in "abcd"]
MAPS = np.full((2, 2, 3), 0.5, np.float16)


@dataclass(frozen=True)
class Settings:
    """No settings."""


@dataclass
class Predictor:
    work: Callable[[Iterator[Sample]], Any]

    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, samples: Iterator[Sample]) -> Any:
        return self.work(samples)


def checked(work: Callable[[Iterator[Sample]], Any]) -> CheckedPredictor:
    """The predictor of a method named `mine`."""
    return CheckedPredictor(
        Method("mine", lambda *_: Predictor(work), Settings, lambda _: "cams"),
        Context(torch.device("cpu"), load_vocabulary("shapes")),
        Settings(),
    )


def good(sample: Sample) -> tuple[Sample, ScoreMaps]:
    return sample, ScoreMaps(sample.key, sample.classes, MAPS, sample.size)


def ends(work: Callable[[Iterator[Sample]], Any]) -> dict[str, str]:
    """How each sample ended, in the order that the results came."""
    found = list(checked(work)(iter(SAMPLES)))
    assert [id(sample) for sample, _ in found] == [id(sample) for sample in SAMPLES]
    return {sample.key: outcome.status if isinstance(outcome, SampleError) else "ok" for sample, outcome in found}


def drop(keys: str) -> Callable[[Iterable[Sample]], Iterator[Any]]:
    return lambda samples: (good(sample) for sample in list(samples) if sample.key not in keys)


@pytest.mark.parametrize("dropped", ["a", "b", "d", "ab", "bd", "abcd", ""])
def test_a_dropped_sample_fails(dropped: str) -> None:
    expected = {key: "no_result" if key in dropped else "ok" for key in "abcd"}
    assert ends(drop(dropped)) == expected
    one_by_one = ends(lambda samples: (good(sample) for sample in samples if sample.key not in dropped))
    assert one_by_one == expected


def test_samples_that_are_not_taken_fail() -> None:
    assert ends(lambda samples: []) == dict.fromkeys("abcd", "no_result")
    assert ends(lambda samples: [good(next(samples))]) == {"a": "ok", **dict.fromkeys("bcd", "no_result")}


def test_the_failure_names_the_method_and_what_is_asked_of_it() -> None:
    outcomes = dict(zip("abcd", (outcome for _, outcome in checked(drop("b"))(SAMPLES)), strict=True))
    assert str(outcomes["b"]) == (
        "method 'mine' gave no result; a predictor yields every sample that it is given, once and in order, with a "
        "result or a SampleError"
    )


def test_results_come_as_soon_as_they_are_there() -> None:
    taken = []

    def samples() -> Iterator[Sample]:
        for sample in SAMPLES:
            taken.append(sample.key)
            yield sample

    results = checked(lambda samples: map(good, samples))(samples())
    next(results)
    assert taken == ["a"]


def twice(samples: Iterable[Sample]) -> Iterator[Any]:
    for sample in samples:
        yield from [good(sample), good(sample)]


def unknown(samples: Iterable[Sample]) -> Iterator[Any]:
    for sample in samples:
        yield good(Sample(f"{sample.key}.jpg", sample.content, sample.classes))


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (twice, "yields sample 'a', which it was not given, or has passed already"),
        (unknown, "yields sample 'a.jpg', which it was not given, or has passed already"),
        (lambda samples: map(good, reversed(list(samples))), "yields sample 'c', which it was not given, or has pas"),
        (lambda samples: (good(sample)[1] for sample in samples), "yields a ScoreMaps instead of a sample and its"),
        (lambda samples: [None], "yields a NoneType instead of a sample and its result"),
        (lambda samples: None, "gives a NoneType instead of an iterator"),
    ],
)
def test_results_that_belong_to_no_sample_are_an_error(work: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(MethodError, match=f"method 'mine' {message}.*; a predictor yields every sample that it is"):
        list(checked(work)(iter(SAMPLES)))


def test_what_is_built_is_a_predictor() -> None:
    context = Context(torch.device("cpu"), load_vocabulary("shapes"))
    for built, message in [(None, "gives a NoneType without a method `__call__`"), (drop(""), "method `settings`")]:
        method = Method("mine", lambda *_, built=built: built, Settings, lambda _: "cams")
        with pytest.raises(MethodError, match=f"method 'mine': its `build` .*{message}"):
            CheckedPredictor(method, context, Settings())
