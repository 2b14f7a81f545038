"""Scores of segments without names: each is matched to a true label of its image by their overlap in pixels."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from pseudolabel.evaluation.confusion import Confusion, check_labels
from pseudolabel.records import BACKGROUND, IGNORE


@dataclass(frozen=True, eq=False)
class Hungarian:
    """Pixel counts of segments with the labels that Hungarian matching gives them.

    In each image the matching maximizes the number of pixels with their true label; a label goes to at most one
    segment. Pixels count if they are valid in truth and prediction. A true label without a segment is missed. The two
    protocols differ in the other segments:

    - `official`, as in DiffSeg's released code: every image is matched to all labels of the data set. Unmatched
      segments get labels that are not in the image and are false positives of those; segments beyond the number of
      labels are false positives of no label.
    - `matched`: a segment without overlap with its label gets no label and is a false positive of none.

    Attributes:
        official: counts with all labels; the last column is for segments without one.
        matched: counts with the labels that overlap their segment.
        has_background: whether 0 is a label.
    """

    official: Confusion
    matched: Confusion
    has_background: bool

    @classmethod
    def empty(cls, classes: int, has_background: bool) -> Self:
        """No pixels yet, for N = `classes` classes besides background."""
        return cls(Confusion.empty(classes), Confusion.empty(classes), has_background)

    def add(self, truth: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Count one image.

        Args:
            truth: uint8 (H, W); 0..N, or 255 for pixels that do not count; without background, nor does 0.
            segments: uint8 (H, W); a value for each segment, or 255 for pixels that do not count.

        Returns:
            uint8 (H, W) twice: the truth and the `matched` labels, both with 255 for pixels that do not
            count; the latter has 255 also in segments without a label.

        Raises:
            ValueError: if the shapes differ or a true label is neither 0..N nor 255.
        """
        if truth.shape != segments.shape:
            raise ValueError(f"truth has shape {truth.shape} and segments {segments.shape}")
        check_labels(truth, self.official.classes, "truth")
        left_out = (truth == IGNORE) | (segments == IGNORE)
        if not self.has_background:
            left_out |= truth == BACKGROUND
        truth = np.where(left_out, np.uint8(IGNORE), truth)
        names, shared = self._match(truth[~left_out], segments[~left_out])
        self.official.add(truth, names[segments])
        matched = np.where(shared, names, np.uint8(IGNORE))[segments]
        self.matched.add(truth, matched)
        return truth, np.where(left_out, np.uint8(IGNORE), matched)

    def _match(self, truth: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each value of a segment its label, uint8 (256,), and whether they overlap, bool (256,)."""
        first, labels = 0 if self.has_background else 1, self.official.classes + 1
        cells = segments.astype(np.int64) * labels + truth
        overlap = np.bincount(cells, minlength=256 * labels).reshape(256, labels)[:, first:]
        found = np.flatnonzero(overlap.sum(1))
        rows, columns = linear_sum_assignment(overlap[found], maximize=True)
        names, shared = np.full(256, IGNORE, np.uint8), np.zeros(256, bool)
        names[found[rows]] = columns + first
        shared[found[rows]] = overlap[found[rows], columns] > 0
        return names, shared

    def __add__(self, other: Self) -> Self:
        """The counts of both.

        Raises:
            ValueError: if their labels differ.
        """
        if self.has_background != other.has_background:
            raise ValueError("cannot add counts with and without background")
        return type(self)(self.official + other.official, self.matched + other.matched, self.has_background)

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels whose segment has their label; both protocols agree on it."""
        return self.matched.accuracy

    @property
    def miou_official(self) -> float:
        """Mean IoU over the labels that are in the truth, by the protocol `official`; NaN if there are none."""
        return _miou(self.official)

    @property
    def miou_matched(self) -> float:
        """Mean IoU over the labels that are in the truth, by the protocol `matched`; NaN if there are none."""
        return _miou(self.matched)


def _miou(confusion: Confusion) -> float:
    """Mean IoU over the labels that are in the truth; NaN if there are none."""
    true = confusion.counts.sum(1) > 0
    return float(confusion.iou[true].mean()) if true.any() else float("nan")
