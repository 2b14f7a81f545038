"""The scoring stage: shards of CAMs, masks or segments, or a folder of PNGs, against ground truth."""

import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Generic, TypeVar

import numpy as np

from pseudolabel.config import Experiment
from pseudolabel.errors import NothingScoredError, SampleError, SettingError, SourceError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.per_image import image_miou
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.evaluation.scope import Scope
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.io.files import Location, join, read_bytes
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import read_mask
from pseudolabel.io.metrics import check_metrics, record_metrics
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.tar import Members, read_tar
from pseudolabel.records import BACKGROUND, IGNORE, Failure, Kind
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.progress import show_progress
from pseudolabel.runtime.rank import Rank
from pseudolabel.runtime.workers import open_pool
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.sample import decode_cams
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.predictions import AMBIGUOUS, NO_PREDICTION, Predictions, find_predictions
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.views.plots import plot_class_iou, plot_confusion, plot_threshold_curve
from pseudolabel.vocabulary import Vocabulary

Counts = ThresholdSweep | Confusion | Hungarian
C = TypeVar("C", ThresholdSweep, Confusion, Hungarian)
FILES_PER_TASK = 32
PLOTS: dict[str, tuple[str, ...]] = {
    "cams": ("cams-threshold.png", "cams-iou.png", "cams-confusion.png"),
    "masks": ("masks-iou.png", "masks-confusion.png"),
    "segments": ("segments-confusion.png",),
}


@dataclass
class Tally(Generic[C]):
    """What has been counted.

    Attributes:
        counts: the pixels.
        keys: of the scored images.
        failures: what went wrong with others, by key.
        unlisted: keys of predictions that are of no listed image.
        unreadable: shards that could not be read to their end, with the reason.
        true, predicted: the labels that the scored images hold, 255 included; of CAMs only the true ones.
        mious: mean IoU of the images one by one, but for CAMs.
        segments: how many each image has, where they are scored.
    """

    counts: C
    keys: list[str] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    true: set[int] = field(default_factory=set)
    predicted: set[int] = field(default_factory=set)
    mious: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def __iadd__(self, other: "Tally[C]") -> "Tally[C]":
        self.counts += other.counts
        self.keys += other.keys
        self.failures |= other.failures
        self.unlisted += other.unlisted
        self.unreadable += other.unreadable
        self.true |= other.true
        self.predicted |= other.predicted
        self.mious += other.mious
        self.segments += other.segments
        return self

    def miou_per_image(self) -> float:
        """Mean over the images that have a pixel to count; NaN if none has."""
        counted = [miou for miou in self.mious if not math.isnan(miou)]
        return fmean(counted) if counted else math.nan


@dataclass(frozen=True)
class Task:
    """A shard, or the PNG files of some images by key, for one worker."""

    kind: Kind
    folder: str
    shard: str = ""
    files: tuple[tuple[str, str], ...] = ()


def evaluate(experiment: Experiment, kind: Kind, rank: Rank, predictions: str = "") -> Report | SegmentReport:
    """Score all predictions that have ground truth, in worker processes, in one pass.

    Writes the report under `kind` into `metrics.json` of the experiment's folder, and plots beside it. The report's
    `scope` tells which of the listed images it is of.

    Args:
        experiment: whose source has the ground truth.
        kind: `cams`, `masks` or `segments`.
        rank: who this process is; scoring is one process's work.
        predictions: folder of shards, or of PNG masks or segments; the experiment's own where it is empty.

    Raises:
        SourceError: if there is no ground truth, or there are no predictions.
        NothingScoredError: if no listed image could be scored.
        SettingError: if CAMs are to be scored without a background that they could be cut from.
        NotOursError: if `metrics.json` or a plot is there that this package did not write.
    """
    vocabulary = choose_vocabulary(experiment)
    if kind == "cams" and not vocabulary.has_background:
        raise SettingError(
            f"class activation maps are scored against background, which vocabulary '{vocabulary.name}' has not; "
            "score masks instead"
        )
    source = open_source(replace(experiment.source, labels="none"), vocabulary)  # scores need the masks alone
    if not source.has_ground_truth:
        raise SourceError(
            f"'{experiment.source.path}' has no ground-truth masks; name their folder with `source.masks`"
        )
    check_metrics(experiment.out, PLOTS[kind] if experiment.evaluate.plots else ())
    found = find_predictions(kind, Folder(predictions or f"{experiment.out}/{kind}"), source.entries)
    tally = _empty(kind, vocabulary)
    workers = experiment.work.workers or rank.cores()
    with (
        open_pool(workers, __name__, _remember, (source, vocabulary)) as pool,
        show_progress(f"evaluate {kind}", len(source.entries)) as progress,
    ):
        for part in pool.map(_score, _tasks(kind, found)):
            tally += part
            progress.update(len(tally.keys), len(tally.failures))
    scope = _scope(tally, found, source, vocabulary)
    if not tally.keys:
        raise NothingScoredError("\n".join([f"nothing was scored in '{found.folder.path}'", *scope.lines()]))
    report = replace(_report(tally, experiment, vocabulary), scope=scope)
    _write(experiment, report, tally, vocabulary)
    return report


def _tasks(kind: Kind, found: Predictions) -> list[Task]:
    if found.shards:
        return [Task(kind, found.folder.path, name) for name in found.shards]
    return [Task(kind, found.folder.path, files=files) for files in batched(found.files.items(), FILES_PER_TASK)]


def _scope(tally: Tally[Any], found: Predictions, source: Source, vocabulary: Vocabulary) -> Scope:
    """Which of the listed images were scored, and why the others were not."""
    scored, known = set(tally.keys), {**found.failures, **tally.failures}
    not_scored: dict[str, tuple[str, str]] = {}
    for entry in source.entries:
        if entry.key in scored:
            continue
        failure = known.get(entry.key)
        if failure is None:
            message = f"no prediction for '{entry.key}' in '{found.folder.path}'"
            not_scored[entry.key] = (NO_PREDICTION, message)
        elif entry.key in tally.failures or failure.status == AMBIGUOUS:
            not_scored[entry.key] = (failure.status, failure.message)
        else:
            message = f"no prediction for '{entry.key}', which failed as {failure.status}: {failure.message}"
            not_scored[entry.key] = (NO_PREDICTION, message)
    warnings = [f"'{found.folder.path}/{name}" for name in tally.unreadable]
    if len(scored) < len(tally.keys):
        twice, count = Counter(tally.keys).most_common(1)[0]
        warnings.append(
            f"{len(tally.keys) - len(scored):,} predictions are of an image that has another, and count as well, such "
            f"as '{twice}', which has {count}"
        )
    has_classes = bool(tally.true - {BACKGROUND, IGNORE})
    if tally.keys and not has_classes:
        effect = "mIoU is over background alone" if vocabulary.has_background else "nothing is scored"
        warnings.append(_no_class("ground truth", effect, tally.true, vocabulary))
    elif tally.predicted and not tally.predicted - {BACKGROUND, IGNORE}:
        warnings.append(_no_class("predictions", "every class is missed", tally.predicted, vocabulary))
    return Scope(
        len(source.entries),
        not_scored,
        [*found.unlisted, *tally.unlisted],
        found.left_out,
        warnings,
        is_empty=bool(tally.keys) and not has_classes,
    )


def _no_class(what: str, effect: str, labels: set[int], vocabulary: Vocabulary) -> str:
    if IGNORE not in labels:
        return f"no class in the {what} of the scored images, only 0 (background): {effect}"
    return (
        f"no class in the {what} of the scored images, only 0 and 255: {effect}. 255 stands for pixels that are "
        f"ignored; a class is written as its number, 1 for '{vocabulary.names[1]}'"
    )


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
    try:
        for key, members in _members(task, tally):
            if key in _entries:
                _score_image(tally, key, members)
            else:
                tally.unlisted.append(key)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        tally.unreadable.append(f"{task.shard}' cannot be read to its end ({error}); its last images are not scored")
    return tally


def _score_image(tally: Tally[Any], key: str, members: Members) -> None:
    try:
        _add(tally, key, members)
    except (SampleError, ValueError) as error:
        _fail(tally, key, error)
    else:
        tally.keys.append(key)


def _fail(tally: Tally[Any], key: str, error: SampleError | ValueError) -> None:
    status = error.status if isinstance(error, SampleError) else "invalid"
    tally.failures[key] = Failure(key, _entries[key].origin, status, str(error))


def _members(task: Task, tally: Tally[Any]) -> Iterator[tuple[str, Members]]:
    folder = Folder(task.folder)
    for key, name in task.files:
        try:
            data = read_bytes(Location(join(task.folder, name)))
        except SampleError as error:
            _fail(tally, key, error)
        else:
            yield key, {"png": data}
    if task.shard:
        with folder.open(task.shard) as file:
            yield from read_tar(file)


def _add(tally: Tally[Any], key: str, members: Members) -> None:
    truth = _source.ground_truth(_entries[key])
    if truth is None:
        raise SampleError("no ground truth", _source.lacks_ground_truth(_entries[key]))
    if isinstance(tally.counts, ThresholdSweep):
        scores = decode_cams(key, members).scores
        _check_size(key, scores.size, truth.labels.shape)
        tally.counts.add(truth.labels, at_image_size(scores.maps, scores.size), scores.classes)
        tally.true |= _labels(truth.labels)
        return
    if "png" not in members:
        raise SampleError("unreadable", f"'{key}' has {', '.join(sorted(members))} and no png in its shard")
    prediction = read_mask(members["png"], f"prediction for '{key}'")
    _check_size(key, prediction.shape, truth.labels.shape)
    found = _labels(prediction)
    if isinstance(tally.counts, Hungarian):
        tally.mious.append(image_miou(*tally.counts.add(truth.labels, prediction)))
        tally.segments.append(len(found - {IGNORE}))
    else:
        tally.mious.append(_add_mask(tally.counts, truth.labels, prediction))
        tally.predicted |= found
    tally.true |= _labels(truth.labels)


def _labels(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist())


def _add_mask(counts: Confusion, truth: np.ndarray, prediction: np.ndarray) -> float:
    """Count a mask; gives the image's own mean IoU, for which void is background where the vocabulary has one."""
    if not _vocabulary.has_background:
        prediction[prediction == BACKGROUND] = IGNORE  # no label was given, so that 0 is no class of the mean
    counts.add(truth, prediction)
    void = BACKGROUND if _vocabulary.has_background else IGNORE
    return image_miou(np.where(truth == IGNORE, np.uint8(void), truth), prediction)


def _check_size(key: str, predicted: tuple[int, ...], true: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(true):
        raise SampleError(
            "size_mismatch", f"'{key}': prediction is {predicted}, ground truth is {true} (height, width)"
        )


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


def _write(experiment: Experiment, report: Report | SegmentReport, tally: Tally[Any], vocabulary: Vocabulary) -> None:
    record_metrics(experiment.out, report.kind, report.to_dict())
    if experiment.evaluate.plots:
        plots = _plot(report, tally.counts, experiment.evaluate.threshold, vocabulary)
        OwnFiles(Folder(experiment.out)).write(plots)


def _plot(report: Report | SegmentReport, counts: Counts, threshold: float, vocabulary: Vocabulary) -> dict[str, bytes]:
    """PNG files by the names of `PLOTS`."""
    if isinstance(counts, Hungarian):
        confusion = counts.matched
    else:
        confusion = counts if isinstance(counts, Confusion) else counts.at(threshold)
    files = {name: io.BytesIO() for name in PLOTS[report.kind]}
    if isinstance(report, Report):
        if report.curve is not None:
            plot_threshold_curve(report, files["cams-threshold.png"])
        plot_class_iou(report, files[f"{report.kind}-iou.png"])
    plot_confusion(confusion, vocabulary.names, files[f"{report.kind}-confusion.png"])
    return {name: file.getvalue() for name, file in files.items()}
