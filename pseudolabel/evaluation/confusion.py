"""The confusion matrix of a data set and the scores that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pseudolabel.records import IGNORE


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixel counts by true and predicted label; truth 255 is never counted.

    There are two mean IoUs. `miou` is MMSegmentation's `IoUMetric`: a pixel predicted 255 is a false negative of its
    true class and no false positive. `miou_covered` excludes such pixels; report it together with `coverage`.

    Attributes:
        counts: int64 (N + 1, N + 2); row t and column p count the pixels of true label t that were predicted p; 0 is
            background and the last column is for predictions of 255. Every array of scores below is float64 (N + 1,)
            in [0, 1], with NaN where a class has nothing to divide by.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> Self:
        """No pixels yet, for N = `classes` classes besides background."""
        return cls(np.zeros((classes + 1, classes + 2), np.int64))

    @property
    def classes(self) -> int:
        """N, the number of classes besides background."""
        return len(self.counts) - 1

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image.

        Args:
            truth: uint8 (H, W); 0..N, or 255 where the pixel is not to be counted.
            prediction: uint8 (H, W); 0..N, or 255 where no label was given.

        Raises:
            ValueError: if the shapes differ or a label is neither 0..N nor 255.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape} and prediction {prediction.shape}")
        check_labels(truth, self.classes, "truth")
        check_labels(prediction, self.classes, "prediction")
        valid = truth != IGNORE
        columns = np.where(prediction == IGNORE, self.classes + 1, prediction)[valid]
        cells = truth[valid].astype(np.int64) * self.counts.shape[1] + columns
        self.counts[...] += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def __add__(self, other: Self) -> Self:
        """The counts of both.

        Raises:
            ValueError: if they have different numbers of classes.
        """
        if self.classes != other.classes:
            raise ValueError(f"cannot add confusions of {self.classes} and {other.classes} classes")
        return type(self)(self.counts + other.counts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for `from_dict`."""
        return {"counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: if the counts are not (N + 1, N + 2).
        """
        counts = np.array(data["counts"], np.int64)
        if counts.ndim != 2 or counts.shape[1] != counts.shape[0] + 1:
            raise ValueError(f"counts of shape {counts.shape} are not a confusion matrix")
        return cls(counts)

    @property
    def hits(self) -> np.ndarray:
        """Pixels predicted right, by label: int64 (N + 1,)."""
        return np.diagonal(self.counts)

    @property
    def predicted(self) -> np.ndarray:
        """Pixels predicted so, by label, without those predicted 255: int64 (N + 1,)."""
        return self.counts[:, :-1].sum(0)

    @property
    def iou(self) -> np.ndarray:
        """Hits / (truth or prediction); a pixel predicted 255 is a miss of its class."""
        return _ratio(self.hits, self.counts.sum(1) + self.predicted - self.hits)

    @property
    def iou_covered(self) -> np.ndarray:
        """Hits / (truth or prediction) over the pixels that were not predicted 255."""
        return _ratio(self.hits, self.counts[:, :-1].sum(1) + self.predicted - self.hits)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the labels, background too, that are in the truth or the prediction; NaN if none is."""
        return _mean(self.iou)

    @property
    def miou_covered(self) -> float:
        """Mean of `iou_covered` over the labels that are in the truth or the prediction; NaN if none is."""
        return _mean(self.iou_covered)

    @property
    def precision(self) -> np.ndarray:
        """Hits / predicted."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """Hits / truth; a pixel predicted 255 is a miss."""
        return _ratio(self.hits, self.counts.sum(1))

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels that were predicted right; NaN if there are no pixels."""
        return float(_ratio(self.hits.sum(), self.counts.sum()))

    @property
    def coverage(self) -> float:
        """Share of the counted pixels that were not predicted 255; NaN if there are no pixels."""
        return float(_ratio(self.predicted.sum(), self.counts.sum()))


def check_labels(labels: np.ndarray, classes: int, what: str) -> None:
    """Check that labels are uint8 and each is 0..`classes` or 255.

    Raises:
        ValueError: naming `what` and the label that is neither.
    """
    if labels.dtype != np.uint8:
        raise ValueError(f"{what} must be uint8, not {labels.dtype}")
    unknown = labels[(labels > classes) & (labels != IGNORE)]
    if unknown.size:
        raise ValueError(f"{what} has label {unknown[0]}, but there are only {classes} classes")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """Mean without NaNs; NaN, without a warning, if there is nothing else."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
