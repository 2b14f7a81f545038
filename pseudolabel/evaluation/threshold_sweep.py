"""Scores of class activation maps at every background threshold, from one pass over the images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pseudolabel.evaluation.confusion import Confusion, check_labels
from pseudolabel.limits import STEPS
from pseudolabel.records import IGNORE
from pseudolabel.score_maps import winners

# float32 like the scores, so that a score equal to a threshold is a tie.
THRESHOLDS = (np.arange(STEPS + 1) / STEPS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ThresholdSweep:
    """Pixel counts from which the confusion at each of the thresholds 0.00, 0.01, ..., 1.00 follows exactly.

    A pixel's label at threshold tau is its largest class if that class's score is greater than tau, else background
    (DiffSegmenter, section 3.2: background scores tau, ties go to background). So it is enough to know, by pixel, the
    true label, the largest class and how many thresholds are below the score; the memory does not grow with the images.

    Attributes:
        counts: int64 (N + 1, N + 1, 102); cell [t, w, b] counts the pixels of true label t whose largest class w (0 in
            images without classes) has a score greater than exactly b thresholds.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> Self:
        """No pixels yet, for N = `classes` classes besides background."""
        return cls(np.zeros((classes + 1, classes + 1, len(THRESHOLDS) + 1), np.int64))

    @property
    def classes(self) -> int:
        """N, the number of classes besides background."""
        return len(self.counts) - 1

    def add(self, truth: np.ndarray, scores: np.ndarray, classes: tuple[int, ...]) -> None:
        """Count one image.

        Args:
            truth: uint8 (H, W); 0..N, or 255 where the pixel is not to be counted.
            scores: float32 (C, H, W) in [0, 1] at the truth's size.
            classes: the C vocabulary indices that the scores belong to.

        Raises:
            ValueError: if the shapes do not fit, or a label or class is not among the N, or a score is not in [0, 1].
        """
        if truth.shape != scores.shape[1:]:
            raise ValueError(f"truth has shape {truth.shape} and scores {scores.shape}")
        if not np.all((scores >= 0) & (scores <= 1)):
            raise ValueError("scores must be in [0, 1]")
        check_labels(truth, self.classes, "truth")
        winner, score = winners(scores, classes)
        if winner.size and winner.max() > self.classes:
            raise ValueError(f"scores are of class {winner.max()}, but there are only {self.classes} classes")
        valid = truth != IGNORE
        below = np.searchsorted(THRESHOLDS, score[valid].astype(np.float32), side="left")
        cells = np.ravel_multi_index((truth[valid], winner[valid], below), self.counts.shape)
        self.counts[...] += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def __add__(self, other: Self) -> Self:
        """The counts of both.

        Raises:
            ValueError: if they have different numbers of classes.
        """
        if self.classes != other.classes:
            raise ValueError(f"cannot add sweeps of {self.classes} and {other.classes} classes")
        return type(self)(self.counts + other.counts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for `from_dict`; only the cells that are not 0, which are few."""
        cells = np.flatnonzero(self.counts)
        return {"classes": self.classes, "cells": cells.tolist(), "counts": self.counts.ravel()[cells].tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        sweep = cls.empty(data["classes"])
        sweep.counts.ravel()[data["cells"]] = data["counts"]
        return sweep

    def confusions(self) -> Iterator[Confusion]:
        """The confusion at each threshold, in the order of `THRESHOLDS`."""
        return (self._at_step(step) for step in range(len(THRESHOLDS)))

    def at(self, threshold: float) -> Confusion:
        """The confusion at one threshold.

        Raises:
            ValueError: if the threshold is not one of 0.00, 0.01, ..., 1.00.
        """
        step = round(threshold * STEPS)
        if not 0 <= step <= STEPS or abs(threshold - step / STEPS) > 1e-9:
            raise ValueError(f"threshold {threshold} is not a multiple of {1 / STEPS} in [0, 1]")
        return self._at_step(step)

    def _at_step(self, step: int) -> Confusion:
        foreground = self.counts[:, 1:, step + 1 :].sum(2)
        confusion = Confusion.empty(self.classes)
        confusion.counts[:, 1:-1] = foreground
        confusion.counts[:, 0] = self.counts.sum((1, 2)) - foreground.sum(1)
        return confusion

    def curve(self) -> np.ndarray:
        """Mean IoU at each threshold, in the order of `THRESHOLDS`: float64 (101,)."""
        return np.array([confusion.miou for confusion in self.confusions()])

    def oracle(self) -> tuple[float, float]:
        """The best mean IoU and the lowest threshold that has it, by the truth itself; (NaN, 0) without pixels."""
        curve = self.curve()
        best = int(np.argmax(curve))
        return float(curve[best]), best / STEPS
