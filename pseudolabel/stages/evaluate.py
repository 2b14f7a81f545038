"""The scoring stage: shards of CAMs, masks or segments, or a folder of PNGs, against ground truth."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, TypeVar

import numpy as np

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.per_image import image_miou
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.methods.score_maps import at_image_size
from pseudolabel.records import BACKGROUND, IGNORE, Kind
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.sample import decode_cams
from pseudolabel.shards.tar import Members, read_tar
from pseudolabel.sources.entry import BadSample, Entry, SourceError
from pseudolabel.sources.images import read_mask
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.metrics import record_metrics
from pseudolabel.stages.progress import show_progress
from pseudolabel.stages.units import Rank
from pseudolabel.stages.workers import open_pool
from pseudolabel.views.plots import plot_class_iou, plot_confusion, plot_threshold_curve
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

Counts = ThresholdSweep | Confusion | Hungarian
C = TypeVar("C", ThresholdSweep, Confusion, Hungarian)
FILES_PER_TASK = 32


@dataclass
class Tally(Generic[C]):
    """What has been counted.

    Attributes:
        counts: the pixels.
        keys: of the scored images.
        faults: what went wrong with others, by key.
        mious: mean IoU of the images one by one, but for CAMs.
        segments: how many each image has, where they are scored.
    """

    counts: C
    keys: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    mious: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def __iadd__(self, other: "Tally[C]") -> "Tally[C]":
        self.counts += other.counts
        self.keys += other.keys
        self.faults |= other.faults
        self.mious += other.mious
        self.segments += other.segments
        return self

    def miou_per_image(self) -> float:
        """Mean over the images that have a pixel to count; NaN if none has."""
        counted = [miou for miou in self.mious if not math.isnan(miou)]
        return fmean(counted) if counted else math.nan


@dataclass(frozen=True)
class Task:
    """A shard, or some PNG files of a folder, for one worker."""

    kind: Kind
    folder: str
    names: tuple[str, ...]


def evaluate(experiment: Experiment, kind: Kind, rank: Rank, predictions: str = "") -> Report | SegmentReport:
    """Score all predictions that have ground truth, in worker processes, in one pass.

    Writes the report under `kind` into `metrics.json` of the experiment's folder, and plots beside it.

    Args:
        experiment: whose source has the ground truth.
        kind: `cams`, `masks` or `segments`.
        rank: who this process is; scoring is one process's work.
        predictions: folder of shards, or of PNG masks or segments; the experiment's own where it is empty.

    Raises:
        SourceError: if there is no ground truth, or there are no predictions for it.
        SettingError: if CAMs are to be scored without a background that they could be cut from.
    """
    vocabulary = load_vocabulary(experiment.vocabulary)
    if kind == "cams" and not vocabulary.has_background:
        raise SettingError(
            f"class activation maps are scored against background, which vocabulary '{vocabulary.name}' has not; "
            "score masks instead"
        )
    source = open_source(replace(experiment.source, labels="none"), vocabulary)
    if not source.has_ground_truth:
        raise SourceError(
            f"'{experiment.source.path}' has no ground-truth masks; name their folder with --source.masks"
        )
    folder = Folder(predictions or f"{experiment.out}/{kind}")
    tasks = _tasks(kind, folder)
    tally = _empty(kind, vocabulary)
    workers = experiment.work.workers or rank.cores()
    with (
        open_pool(workers, __name__, _remember, (source, vocabulary)) as pool,
        show_progress(f"evaluate {kind}", len(source.entries)) as meter,
    ):
        for part in pool.map(_score, tasks):
            tally += part
            meter.update(len(tally.keys), len(tally.faults))
    if not tally.keys:
        first = next(iter(tally.faults.values()), "no key of theirs is in the source's list")
        raise SourceError(f"none of the predictions in '{folder.path}' could be scored: {first}")
    report = _report(tally, experiment, vocabulary)
    _write(experiment, report, tally, source, vocabulary)
    return report


def _tasks(kind: Kind, folder: Folder) -> list[Task]:
    names = folder.names()
    shards = [name for name in names if name.endswith(".tar")]
    files = [name for name in names if name.endswith(".png")] if kind != "cams" else []
    if not shards and not files:
        wanted = {"cams": "CAM shards", "masks": "mask shards or PNG masks", "segments": "segment shards or PNG files"}
        raise SourceError(
            f"no {wanted[kind]} in '{folder.path}'; write them first, or name another folder with --predictions"
        )
    groups: list[tuple[str, ...]] = [(name,) for name in shards] or list(batched(files, FILES_PER_TASK))
    return [Task(kind, folder.path, group) for group in groups]


# The workers' own copies, handed over once when they start.
_source: Source
_vocabulary: Vocabulary
_entries: dict[str, Entry]


def _remember(source: Source, vocabulary: Vocabulary) -> None:
    global _source, _vocabulary, _entries
    _source, _vocabulary = source, vocabulary
    _entries = {entry.key: entry for entry in source.entries}


def _score(task: Task) -> "Tally[Any]":
    tally = _empty(task.kind, _vocabulary)
    for key, members in _members(task):
        if key not in _entries:
            continue
        try:
            _add(tally, key, members)
        except (BadSample, ValueError) as error:
            tally.faults[key] = str(error)
        else:
            tally.keys.append(key)
    return tally


def _members(task: Task) -> Iterator[tuple[str, Members]]:
    folder = Folder(task.folder)
    for name in task.names:
        if name.endswith(".png"):
            yield name.removesuffix(".png"), {"png": folder.read_bytes(name)}
        else:
            with folder.open(name) as file:
                yield from read_tar(file)


def _add(tally: Tally[Any], key: str, members: Members) -> None:
    truth = _source.ground_truth(_entries[key])
    if truth is None:
        raise BadSample("missing", f"no ground truth for '{key}'")
    if isinstance(tally.counts, ThresholdSweep):
        scores = decode_cams(key, members).scores
        _check_size(key, scores.size, truth.labels.shape)
        tally.counts.add(truth.labels, at_image_size(scores.maps, scores.size), scores.classes)
        return
    prediction = read_mask(members["png"], f"prediction for '{key}'")
    _check_size(key, prediction.shape, truth.labels.shape)
    if isinstance(tally.counts, Hungarian):
        tally.mious.append(image_miou(*tally.counts.add(truth.labels, prediction)))
        tally.segments.append(len(np.setdiff1d(prediction, IGNORE)))
    else:
        tally.mious.append(_add_mask(tally.counts, truth.labels, prediction))


def _add_mask(counts: Confusion, truth: np.ndarray, prediction: np.ndarray) -> float:
    """Count a mask; gives the image's own mean IoU, for which void is background where the vocabulary has one."""
    if not _vocabulary.has_background:
        prediction[prediction == BACKGROUND] = IGNORE  # no label was given, so that 0 is no class of the mean
    counts.add(truth, prediction)
    void = BACKGROUND if _vocabulary.has_background else IGNORE
    return image_miou(np.where(truth == IGNORE, np.uint8(void), truth), prediction)


def _check_size(key: str, predicted: tuple[int, ...], true: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(true):
        raise BadSample("size_mismatch", f"'{key}': prediction is {predicted}, ground truth is {true} (height, width)")


def _empty(kind: Kind, vocabulary: Vocabulary) -> "Tally[Any]":
    if kind == "segments":
        return Tally(Hungarian.empty(len(vocabulary), vocabulary.has_background))
    return Tally((ThresholdSweep if kind == "cams" else Confusion).empty(len(vocabulary)))


def _report(tally: Tally[Any], experiment: Experiment, vocabulary: Vocabulary) -> Report | SegmentReport:
    names, split, images = vocabulary.names, experiment.source.split, len(tally.keys)
    if isinstance(tally.counts, Hungarian):
        segments = fmean(tally.segments)
        return SegmentReport.of_segments(tally.counts, names, split, images, segments, tally.miou_per_image())
    if isinstance(tally.counts, Confusion):
        return Report.of_masks(tally.counts, names, split, images, tally.miou_per_image())
    chosen = experiment.evaluate
    return Report.of_cams(tally.counts, names, split, images, chosen.threshold, chosen.threshold_chosen_on)


def _write(
    experiment: Experiment, report: Report | SegmentReport, tally: Tally[Any], source: Source, vocabulary: Vocabulary
) -> None:
    scored = set(tally.keys)
    unscored = [entry.key for entry in source.entries if entry.key not in scored]
    metrics = {
        **report.to_dict(),
        "listed": len(source.entries),
        "not_scored": len(unscored),
        "faults": tally.faults,
    }
    record_metrics(experiment.out, report.kind, metrics)
    folder = Folder(experiment.out).local
    if experiment.evaluate.plots and folder is not None:
        _plot(report, tally.counts, experiment.evaluate.threshold, vocabulary, folder)


def _plot(
    report: Report | SegmentReport, counts: Counts, threshold: float, vocabulary: Vocabulary, folder: Path
) -> None:
    if isinstance(counts, Hungarian):
        confusion = counts.matched
    else:
        confusion = counts if isinstance(counts, Confusion) else counts.at(threshold)
    if isinstance(report, Report):
        if report.curve is not None:
            plot_threshold_curve(report, folder / "cams-threshold.png")
        plot_class_iou(report, folder / f"{report.kind}-iou.png")
    plot_confusion(confusion, vocabulary.names, folder / f"{report.kind}-confusion.png")
