"""One scorer for each kind of prediction: class activation maps, masks, and segments without names."""

import io
import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from pseudolabel.config import EvaluateConfig
from pseudolabel.errors import SampleError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.per_image import image_miou
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.io.images import read_mask
from pseudolabel.io.tar import Members
from pseudolabel.records import BACKGROUND, IGNORE, Kind
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.sample import decode_cams
from pseudolabel.views.plots import plot_class_iou, plot_confusion, plot_threshold_curve
from pseudolabel.vocabulary import Vocabulary


class Scorer(Protocol):
    """Counts images of one kind; those of several processes are added up.

    Attributes:
        plots: names of the PNG files that `draw` makes.
        true, predicted: labels that occur in the scored images, 255 included; `predicted` is empty for CAMs.
    """

    plots: ClassVar[tuple[str, ...]]
    true: set[int]
    predicted: set[int]

    def add(self, key: str, members: Members, truth: np.ndarray) -> None:
        """Count one image: the members of its prediction, and its uint8 (H, W) ground truth.

        Raises:
            SampleError: if the prediction is damaged, or its size differs.
            ValueError: if it cannot be counted.
        """
        ...

    def __iadd__(self, other: Any) -> Self: ...

    def report(self, split: str, images: int, config: EvaluateConfig) -> Report | SegmentReport:
        """The scores of all images."""
        ...

    def draw(self, report: Any, config: EvaluateConfig) -> dict[str, bytes]:
        """PNG files by name."""
        ...


@dataclass
class CamScorer:
    """Class activation maps at every background threshold."""

    vocabulary: Vocabulary
    plots: ClassVar[tuple[str, ...]] = ("cams-threshold.png", "cams-iou.png", "cams-confusion.png")
    true: set[int] = field(default_factory=set)
    predicted: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.counts = ThresholdSweep.empty(len(self.vocabulary))

    def add(self, key: str, members: Members, truth: np.ndarray) -> None:
        scores = decode_cams(key, members).scores
        _check_size(key, scores.size, truth.shape)
        self.counts.add(truth, at_image_size(scores.maps, scores.size, scores.final), scores.classes)
        self.true |= _labels(truth)

    def __iadd__(self, other: "CamScorer") -> Self:
        self.counts += other.counts
        self.true |= other.true
        return self

    def report(self, split: str, images: int, config: EvaluateConfig) -> Report:
        names = self.vocabulary.names
        return Report.of_cams(self.counts, names, split, images, config.threshold, config.threshold_chosen_on)

    def draw(self, report: Report, config: EvaluateConfig) -> dict[str, bytes]:
        curve = io.BytesIO()
        plot_threshold_curve(report, curve)
        confusion = self.counts.at(config.threshold)
        return {self.plots[0]: curve.getvalue(), **_draw(report, confusion, self.vocabulary)}


@dataclass
class MaskScorer:
    """Masks of the vocabulary's classes as they are."""

    vocabulary: Vocabulary
    plots: ClassVar[tuple[str, ...]] = ("masks-iou.png", "masks-confusion.png")
    true: set[int] = field(default_factory=set)
    predicted: set[int] = field(default_factory=set)
    mious: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = Confusion.empty(len(self.vocabulary))

    def add(self, key: str, members: Members, truth: np.ndarray) -> None:
        prediction = _read_prediction(key, members, truth)
        found = _labels(prediction)
        if not self.vocabulary.has_background:
            prediction[prediction == BACKGROUND] = IGNORE  # no label was given, so that 0 is no class of the mean
        self.counts.add(truth, prediction)
        # The image's own mean counts void as background where the vocabulary has one.
        void = BACKGROUND if self.vocabulary.has_background else IGNORE
        self.mious.append(image_miou(np.where(truth == IGNORE, np.uint8(void), truth), prediction))
        self.true |= _labels(truth)
        self.predicted |= found

    def __iadd__(self, other: "MaskScorer") -> Self:
        self.counts += other.counts
        self.mious += other.mious
        self.true |= other.true
        self.predicted |= other.predicted
        return self

    def report(self, split: str, images: int, config: EvaluateConfig) -> Report:
        return Report.of_masks(self.counts, self.vocabulary.names, split, images, _mean(self.mious))

    def draw(self, report: Report, config: EvaluateConfig) -> dict[str, bytes]:
        return _draw(report, self.counts, self.vocabulary)


@dataclass
class SegmentScorer:
    """Segments without names, each matched to a true label of its image."""

    vocabulary: Vocabulary
    plots: ClassVar[tuple[str, ...]] = ("segments-confusion.png",)
    true: set[int] = field(default_factory=set)
    predicted: set[int] = field(default_factory=set)
    mious: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = Hungarian.empty(len(self.vocabulary), self.vocabulary.has_background)

    def add(self, key: str, members: Members, truth: np.ndarray) -> None:
        prediction = _read_prediction(key, members, truth)
        self.segments.append(len(_labels(prediction) - {IGNORE}))
        self.mious.append(image_miou(*self.counts.add(truth, prediction)))
        self.true |= _labels(truth)

    def __iadd__(self, other: "SegmentScorer") -> Self:
        self.counts += other.counts
        self.mious += other.mious
        self.segments += other.segments
        self.true |= other.true
        return self

    def report(self, split: str, images: int, config: EvaluateConfig) -> SegmentReport:
        names, segments = self.vocabulary.names, fmean(self.segments)
        return SegmentReport.of_segments(self.counts, names, split, images, segments, _mean(self.mious))

    def draw(self, report: SegmentReport, config: EvaluateConfig) -> dict[str, bytes]:
        file = io.BytesIO()
        plot_confusion(self.counts.matched, self.vocabulary.names, file)
        return {self.plots[0]: file.getvalue()}


SCORERS: dict[Kind, type[CamScorer] | type[MaskScorer] | type[SegmentScorer]] = {
    "cams": CamScorer,
    "masks": MaskScorer,
    "segments": SegmentScorer,
}


def _draw(report: Report, confusion: Confusion, vocabulary: Vocabulary) -> dict[str, bytes]:
    iou, matrix = io.BytesIO(), io.BytesIO()
    plot_class_iou(report, iou)
    plot_confusion(confusion, vocabulary.names, matrix)
    return {f"{report.kind}-iou.png": iou.getvalue(), f"{report.kind}-confusion.png": matrix.getvalue()}


def _mean(mious: list[float]) -> float:
    """Mean over the images that have a pixel to count; NaN if none has."""
    counted = [miou for miou in mious if not math.isnan(miou)]
    return fmean(counted) if counted else math.nan


def _read_prediction(key: str, members: Members, truth: np.ndarray) -> np.ndarray:
    if "png" not in members:
        raise SampleError("unreadable", f"'{key}' has {', '.join(sorted(members))} and no png in its shard")
    prediction = read_mask(members["png"], f"prediction for '{key}'")
    _check_size(key, prediction.shape, truth.shape)
    return prediction


def _labels(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist())


def _check_size(key: str, predicted: tuple[int, ...], true: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(true):
        message = f"'{key}': prediction is {predicted}, ground truth is {true} (height, width)"
        raise SampleError("size_mismatch", message)
