"""Scores of predicted image-level labels: precision, recall and F1 over all images and classes, and by class."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


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


def print_label_scores(scores: dict[str, LabelScores], names: Collection[str], title: str, console: Console) -> None:
    """Print the scores of several rules, and of the last one those of each class.

    Args:
        scores: by the rule's name.
        names: the classes', without background.
        title: printed on top.
        console: where to.
    """
    rules = _table("rule", "hits", title=title)
    for rule, counted in scores.items():
        rules.add_row(rule, str(counted.hits.sum()), *_cells(counted.micro))
    console.print(rules)
    last, counted = list(scores.items())[-1]
    classes = _table(f"class ({last})", "images")
    for name, images, row in zip(names, counted.true.tolist(), counted.by_class, strict=True):
        classes.add_row(Text(name), str(images), *_cells(row))
    console.print(classes)


def _table(*headings: str, title: str | None = None) -> Table:
    # As text, for names of splits may hold brackets, which are markup elsewhere.
    shown = Text(title) if title is not None else None
    table = Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(headings[0])
    for heading in (*headings[1:], "precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    return table


def _cells(scores: Iterable[float]) -> list[str]:
    """Shares as per cent; a dash for NaN."""
    return ["-" if np.isnan(score) else f"{100 * score:.1f}" for score in scores]


def _scores(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        return hits / predicted, hits / true, 2 * hits / (predicted + true)


def _named(scores: Iterable[float]) -> dict[str, float | None]:
    values = (None if np.isnan(score) else score for score in scores)
    return dict(zip(("precision", "recall", "f1"), values, strict=True))
