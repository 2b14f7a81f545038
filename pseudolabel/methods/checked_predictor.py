"""A method's predictor, checked: what it was given comes back, each sample once and in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from pseudolabel.errors import MethodError, SampleError
from pseudolabel.methods.registry import Context, Method, Outcome
from pseudolabel.records import Sample

NO_RESULT = "no_result"  # status of a sample that a predictor did not give back
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
        self._method = method
        self._predictor: Any = method.build(context, settings)
        for name in ("__call__", "settings"):
            if not callable(getattr(self._predictor, name, None)):
                kind = type(self._predictor).__name__
                raise MethodError(f"method '{method.name}': its `build` gives a {kind} without a method `{name}`")
        self.view = getattr(self._predictor, "view", None)

    def settings(self) -> dict[str, Any]:
        """Those of the predictor."""
        return self._predictor.settings()

    def __call__(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        """Every sample with its result or its failure, in order.

        A sample that the predictor does not give back fails with the status `no_result`.

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
            yield sample, outcome
        for sample in chain(waiting, source):
            yield sample, self._no_result()

    def _results(self, samples: Iterator[Sample]) -> Iterator[Any]:
        results = self._predictor(samples)
        if not isinstance(results, Iterable):
            raise self._error(f"gives a {type(results).__name__} instead of an iterator")
        return iter(results)

    def _unpack(self, pair: Any) -> tuple[str, Any]:
        """The key of the sample that a result belongs to, and the result."""
        if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Sample):
            return pair[0].key, pair[1]
        raise self._error(f"yields a {type(pair).__name__} instead of a sample and its result")

    def _no_result(self) -> SampleError:
        return SampleError(NO_RESULT, f"method '{self._method.name}' gave no result; {CONTRACT}")

    def _error(self, problem: str) -> MethodError:
        return MethodError(f"method '{self._method.name}' {problem}; {CONTRACT}")
