"""Scores of segments without names: each is matched to a true label of its image by the pixels that they share."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from pseudolabel.evaluation.confusion import Confusion, check_labels
from pseudolabel.records import BACKGROUND, IGNORE


@dataclass(frozen=True, eq=False)
class Hungarian:
    """Pixel counts of segments that took the names of the labels they were matched to.

    In each image the matching gives as many pixels their true label as possible; a label goes to one segment at most.
    Pixels are counted that are valid in both the truth and the prediction. The true labels of which no segment is left
    are missed. The two protocols differ in what the other leftovers cost:

    - `official`, as DiffSeg's released code scores: all the data set's labels are to be had in every image. Segments
      that are left over take labels that the image has not, and are false alarms of those; where there are more
      segments than labels, the rest is nobody's false alarm.
    - `matched`: a segment that shares no pixel with its label is left without one, and is nobody's false alarm.

    Attributes:
        official: counts with all the names; the last column is for segments without one.
        matched: the same with the names that share a pixel.
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
            truth: uint8 (H, W); 0..N, or 255 where the pixel is not to be counted; so is 0 where it is no label.
            segments: uint8 (H, W); any values, one for each segment, or 255 where the pixel is not to be counted.

        Returns:
            uint8 (H, W) twice: the truth and the `matched` labels, both with 255 where the pixel is not counted; where
            a segment is left without a label, the latter has it, too.

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
        """For each value of a segment its label, uint8 (256,), and whether they share a pixel, bool (256,)."""
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
            ValueError: if they are not of the same labels.
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
    """Without the labels that the truth has not, which can only be false alarms."""
    true = confusion.counts.sum(1) > 0
    return float(confusion.iou[true].mean()) if true.any() else float("nan")
