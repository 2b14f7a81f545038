"""A method's predictor, checked: each sample comes back once and in order, with a result that can be written."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from PIL import Image

from pseudolabel.errors import MethodError, SampleError
from pseudolabel.io.json_text import encode_json
from pseudolabel.methods.outcome import problem_of
from pseudolabel.methods.plugin_errors import plugin_errors
from pseudolabel.methods.registry import Context, Method, Outcome
from pseudolabel.records import Sample

NO_RESULT = "no_result"  # status of a sample that a predictor did not give back
INVALID_RESULT = "invalid_result"  # status of a sample whose result cannot be written
CONTRACT = "a predictor yields every sample that it is given, once and in order, with a result or a SampleError"


class CheckedPredictor:
    """The predictor of a method, whose results can be relied on: every sample comes back exactly once, in order.

    Args:
        method: the entry, whose `build` makes the predictor.
        context: as for `build`.
        settings: as for `build`.

    Attributes:
        view: the predictor's own, or None.

    Raises:
        MethodError: if what is built is no predictor.
    """

    def __init__(self, method: Method, context: Context, settings: Any) -> None:
        self._method, self._kind, self._last = method, method.kind(settings), len(context.vocabulary)
        with plugin_errors(method):
            self._predictor: Any = method.build(context, settings)
        for name in ("__call__", "settings"):
            if not callable(getattr(self._predictor, name, None)):
                kind = type(self._predictor).__name__
                raise MethodError(f"method '{method.name}': its `build` gives a {kind} without a method `{name}`")
        self.view = self._view if hasattr(self._predictor, "view") else None

    def settings(self) -> dict[str, Any]:
        """Those of the predictor.

        Raises:
            MethodError: if they are not ready for JSON.
        """
        with plugin_errors(self._method):
            settings = self._predictor.settings()
        try:
            encode_json(settings)
        except (TypeError, ValueError) as error:
            message = f"method '{self._method.name}': what `settings()` gives is not ready for JSON: {error}"
            raise MethodError(message) from error
        return settings

    def _view(self, image: Image.Image) -> Any:
        with plugin_errors(self._method, SampleError):
            return self._predictor.view(image)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        """Every sample with its result or its failure, in order.

        A sample that the predictor does not give back fails with the status `no_result`, and one whose result cannot
        be written with `invalid_result`.

        Raises:
            MethodError: if it gives anything else, or a sample that it was not given, out of order or twice.
        """
        source, waiting = iter(samples), deque[Sample]()

        def given() -> Iterator[Sample]:
            for sample in source:
                waiting.append(sample)
                yield sample

        for pair in self._results(given()):
            key, outcome = self._unpack(pair)
            if all(sample.key != key for sample in waiting):
                raise self._error(f"yields sample '{key}', which it was not given, or has passed already")
            while (sample := waiting.popleft()).key != key:
                yield sample, self._no_result()
            yield sample, self._checked(sample, outcome)
        for sample in chain(waiting, source):
            yield sample, self._no_result()

    def _results(self, samples: Iterator[Sample]) -> Iterator[Any]:
        """What the predictor yields."""
        with plugin_errors(self._method):
            results = self._predictor(samples)
        if not isinstance(results, Iterable):
            raise self._error(f"gives a {type(results).__name__} instead of an iterator")
        iterator, end = iter(results), object()
        while (pair := self._next(iterator, end)) is not end:
            yield pair

    def _next(self, results: Iterator[Any], end: object) -> Any:
        try:
            with plugin_errors(self._method, SampleError):
                return next(results, end)
        except SampleError as error:
            raise self._error(f"raises a SampleError instead of yielding it, '{error}'") from error

    def _unpack(self, pair: Any) -> tuple[str, Any]:
        """The key of the sample that a result belongs to, and the result."""
        if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Sample):
            return pair[0].key, pair[1]
        raise self._error(f"yields a {type(pair).__name__} instead of a sample and its result")

    def _checked(self, sample: Sample, outcome: Any) -> Outcome:
        if isinstance(outcome, SampleError):
            return outcome
        problem = problem_of(outcome, sample, self._kind, self._last)
        return (
            SampleError(INVALID_RESULT, f"method '{self._method.name}' gave a result that cannot be used: {problem}")
            if problem
            else outcome
        )

    def _no_result(self) -> SampleError:
        return SampleError(NO_RESULT, f"method '{self._method.name}' gave no result; {CONTRACT}")

    def _error(self, problem: str) -> MethodError:
        return MethodError(f"method '{self._method.name}' {problem}; {CONTRACT}")
