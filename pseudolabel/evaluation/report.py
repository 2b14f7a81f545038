"""The scores of one evaluation, as they go into metrics.json and onto the terminal."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.scope import Scope
from pseudolabel.evaluation.threshold_sweep import THRESHOLDS, ThresholdSweep
from pseudolabel.limits import STEPS

ORACLE_ORIGIN = "the scored images themselves"
OFFICIAL = "Hungarian matching per image; unmatched segments are false positives of absent labels (as released)"
MATCHED = "Hungarian matching per image; unmatched segments are no false positives"
PER_IMAGE = "mean over images of their own labels' IoU, void counted as background (FreeSeg-Diff as released)"


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in [0, 1]; NaN where the class has nothing to divide by."""

    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Oracle:
    """The best mean IoU over all thresholds, in [0, 1], and its threshold: chosen with the scored images' own truth."""

    miou: float
    threshold: float


@dataclass(frozen=True)
class Fixed:
    """Mean IoU in [0, 1] at a threshold that was chosen beforehand, on the split `chosen_on`."""

    miou: float
    threshold: float
    chosen_on: str


@dataclass(frozen=True)
class Curve:
    """Mean IoU in [0, 1] at each of the thresholds."""

    thresholds: tuple[float, ...]
    miou: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """The scores of class activation maps or of pseudo-masks against ground truth.

    Attributes:
        kind: `cams`, whose scores except oracle and curve are those at the fixed threshold, or `masks`.
        split: name of the scored images.
        images: their number.
        miou: mean IoU over all classes and background, in [0, 1]; pixels predicted 255 are misses of their class.
        miou_covered: the same over the pixels that were not predicted 255.
        coverage: the share of those pixels.
        accuracy: the share of the pixels that were predicted right.
        per_class: scores by class name, background first.
        miou_per_image: only of masks: mean over the images of the mean IoU over the labels that an image has, with void
            counted as background, as FreeSeg-Diff's released code scores.
        oracle: only of CAMs.
        fixed: only of CAMs.
        curve: only of CAMs.
        scope: which of the listed images these are.
    """

    kind: Literal["cams", "masks"]
    split: str
    images: int
    miou: float
    miou_covered: float
    coverage: float
    accuracy: float
    per_class: dict[str, ClassScores]
    miou_per_image: float | None = None
    oracle: Oracle | None = None
    fixed: Fixed | None = None
    curve: Curve | None = None
    scope: Scope | None = None

    @classmethod
    def of_masks(
        cls,
        confusion: Confusion,
        names: tuple[str, ...],
        split: str,
        images: int,
        miou_per_image: float | None = None,
    ) -> Self:
        """Report on pseudo-masks.

        Args:
            confusion: counted over the images.
            names: the vocabulary's names, background first.
            split: name of the scored images.
            images: their number.
            miou_per_image: where the images were scored one by one, too.

        Raises:
            ValueError: if there are not as many names as labels.
        """
        return cls("masks", split, images, **_scores(confusion, names), miou_per_image=miou_per_image)

    @classmethod
    def of_cams(
        cls, sweep: ThresholdSweep, names: tuple[str, ...], split: str, images: int, threshold: float, chosen_on: str
    ) -> Self:
        """Report on class activation maps.

        Args:
            sweep: counted over the images.
            names: the vocabulary's names, background first.
            split: name of the scored images.
            images: their number.
            threshold: the fixed threshold, a multiple of .01.
            chosen_on: the split on which it was chosen.

        Raises:
            ValueError: if there are not as many names as labels, or the threshold is not one that was swept.
        """
        confusion = sweep.at(threshold)
        curve = Curve(tuple(step / STEPS for step in range(len(THRESHOLDS))), tuple(sweep.curve().tolist()))
        fixed = Fixed(confusion.miou, threshold, chosen_on)
        scores = _scores(confusion, names)
        return cls("cams", split, images, **scores, oracle=Oracle(*sweep.oracle()), fixed=fixed, curve=curve)

    def to_dict(self) -> dict[str, Any]:
        """The report for metrics.json: plain types, None for NaN, and without oracle, fixed and curve of masks."""
        return _to_dict(self)


@dataclass(frozen=True)
class SegmentClassScores:
    """IoU of one class in [0, 1] by each protocol; NaN where the class has nothing to divide by."""

    iou_official: float
    iou_matched: float


@dataclass(frozen=True)
class SegmentReport:
    """The scores of segments without names, matched to the true labels of each image (`evaluation.hungarian`).

    Attributes:
        kind: `segments`.
        split: name of the scored images.
        images: their number.
        segments: the mean number of segments in an image.
        accuracy: share of the pixels whose segment has their label.
        miou_official: mean IoU over the labels that are in the truth, with unmatched segments as false positives
            of absent labels; all scores are in [0, 1].
        miou_matched: the same without those false positives.
        miou_per_image: mean over the images of the mean IoU over an image's labels, without those false positives.
        per_class: scores by class name, background first.
        scope: which of the listed images these are.
    """

    kind: Literal["segments"]
    split: str
    images: int
    segments: float
    accuracy: float
    miou_official: float
    miou_matched: float
    miou_per_image: float
    per_class: dict[str, SegmentClassScores]
    scope: Scope | None = None

    @classmethod
    def of_segments(
        cls,
        counts: Hungarian,
        names: tuple[str, ...],
        split: str,
        images: int,
        segments: float,
        miou_per_image: float,
    ) -> Self:
        """Report on segments.

        Args:
            counts: over the images.
            names: the vocabulary's names, background first.
            split: name of the scored images.
            images: their number.
            segments: their mean number.
            miou_per_image: from the images one by one.

        Raises:
            ValueError: if there are not as many names as labels.
        """
        rows = zip(names, counts.official.iou.tolist(), counts.matched.iou.tolist(), strict=True)
        return cls(
            "segments",
            split,
            images,
            segments=segments,
            accuracy=counts.accuracy,
            miou_official=counts.miou_official,
            miou_matched=counts.miou_matched,
            miou_per_image=miou_per_image,
            per_class={name: SegmentClassScores(*scores) for name, *scores in rows},
        )

    def to_dict(self) -> dict[str, Any]:
        """The report for metrics.json: plain types, None for NaN."""
        return _to_dict(self)


def _scores(confusion: Confusion, names: tuple[str, ...]) -> dict[str, Any]:
    rows = zip(names, confusion.iou.tolist(), confusion.precision.tolist(), confusion.recall.tolist(), strict=True)
    return {
        "miou": confusion.miou,
        "miou_covered": confusion.miou_covered,
        "coverage": confusion.coverage,
        "accuracy": confusion.accuracy,
        "per_class": {name: ClassScores(*scores) for name, *scores in rows},
    }


def _to_dict(report: Report | SegmentReport) -> dict[str, Any]:
    fields = asdict(replace(report, scope=None))
    scores = {field: _plain(value) for field, value in fields.items() if value is not None}
    return scores | (report.scope.to_dict() if report.scope is not None else {})


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


WHAT = {"cams": "Class activation maps", "masks": "Pseudo-masks", "segments": "Segments"}


def print_report(report: Report | SegmentReport, console: Console) -> None:
    """Print the report: the headline scores, each with its protocol, then a line for each class."""
    what = WHAT[report.kind]
    console.print(
        Text.assemble((what, "bold"), f" on {report.split}, {report.images:,} image{'s' * (report.images != 1)}")
    )
    console.print(_headline(report))
    console.print(_class_table(report))


def _headline(report: Report | SegmentReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    if isinstance(report, SegmentReport):
        table.add_row("mIoU, official", _score(report.miou_official), OFFICIAL)
        table.add_row("mIoU, matched", _score(report.miou_matched), MATCHED, style="bold")
        table.add_row("mIoU, per image", _score(report.miou_per_image), "mean over images of their own labels' IoU")
        table.add_row("accuracy", _score(report.accuracy), "share of pixels whose segment has their label")
        table.add_row("segments", f"{report.segments:.2f}", "per image")
        return table
    if report.fixed and report.oracle:
        fixed, oracle = report.fixed, report.oracle
        note = f"threshold {fixed.threshold:.2f}, chosen on: {fixed.chosen_on}"
        table.add_row("mIoU, fixed threshold", _score(fixed.miou), Text(note), style="bold")
        note = f"threshold {oracle.threshold:.2f}, chosen on: {ORACLE_ORIGIN}"
        table.add_row("mIoU, oracle threshold", _score(oracle.miou), Text(note))
        return table
    table.add_row("mIoU", _score(report.miou), "ignored pixels (255) count as misses", style="bold")
    table.add_row("mIoU, covered pixels", _score(report.miou_covered), "ignored pixels left out")
    table.add_row("coverage", _score(report.coverage), "share of pixels not ignored")
    table.add_row("accuracy", _score(report.accuracy), "share of pixels predicted right")
    if report.miou_per_image is not None:
        table.add_row("mIoU, per image", _score(report.miou_per_image), PER_IMAGE)
    return table


def _class_table(report: Report | SegmentReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    headings = (
        ("IoU, official", "IoU, matched") if isinstance(report, SegmentReport) else ("IoU", "precision", "recall")
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("", width=24)
    for name, scores in report.per_class.items():
        numbers = list(asdict(scores).values())
        drawn = scores.iou_matched if isinstance(scores, SegmentClassScores) else scores.iou
        bar = Bar(1, 0, 0.0 if math.isnan(drawn) else drawn, width=24, color="cyan")
        table.add_row(Text(name), *map(_score, numbers), bar)
    return table


def _score(value: float) -> str:
    """A share as per cent; a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
