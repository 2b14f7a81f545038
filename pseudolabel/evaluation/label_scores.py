"""Scores of predicted image-level labels: precision, recall and F1 over all images and classes, and by class."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class LabelScores:
    """How often each class was predicted, was there, or both.

    Attributes:
        hits, predicted, true: int64 (N,), numbers of images by class, in the vocabulary's order.
    """

    hits: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @classmethod
    def count(cls, pairs: Iterable[tuple[Collection[int], Collection[int]]], classes: int) -> Self:
        """Count images.

        Args:
            pairs: of each image the predicted and the true classes, vocabulary indices 1..N.
            classes: N.
        """
        hits, predicted, true = np.zeros((3, classes), np.int64)
        for guess, truth in pairs:
            for counts, found in ((hits, {*guess} & {*truth}), (predicted, {*guess}), (true, {*truth})):
                counts[[index - 1 for index in found]] += 1
        return cls(hits, predicted, true)

    @cached_property
    def micro(self) -> tuple[float, float, float]:
        """Precision, recall and F1 of all (image, class) pairs together, in [0, 1]; NaN where there are none."""
        rows = np.array([[counts.sum()] for counts in (self.hits, self.predicted, self.true)])
        precision, recall, f1 = (float(score[0]) for score in _scores(*rows))
        return precision, recall, f1

    @cached_property
    def by_class(self) -> np.ndarray:
        """float64 (N, 3): precision, recall and F1 of each class, in [0, 1]; NaN where it has nothing to divide by."""
        return np.stack(_scores(self.hits, self.predicted, self.true), axis=1)

    def to_dict(self, names: Collection[str]) -> dict[str, Any]:
        """For metrics.json, with None for NaN; `names` are the classes', without background."""
        rows = zip(names, self.by_class.tolist(), self.true.tolist(), strict=True)
        return {
            **_named(self.micro),
            "per_class": {name: {**_named(scores), "images": images} for name, scores, images in rows},
        }


def _scores(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        return hits / predicted, hits / true, 2 * hits / (predicted + true)


def _named(scores: Iterable[float]) -> dict[str, float | None]:
    values = (None if np.isnan(score) else score for score in scores)
    return dict(zip(("precision", "recall", "f1"), values, strict=True))
