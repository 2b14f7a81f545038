"""The scoring stage: CAM or mask shards, or a folder of mask PNGs, against ground truth."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.report import Report
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.methods.score_maps import at_image_size
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.ledger import encode_json
from pseudolabel.shards.sample import decode_cams
from pseudolabel.shards.tar import Members, read_tar
from pseudolabel.sources.entry import BadSample, Entry, SourceError
from pseudolabel.sources.images import read_mask
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.progress import show_progress
from pseudolabel.stages.units import Rank
from pseudolabel.stages.workers import open_pool
from pseudolabel.views.plots import plot_class_iou, plot_confusion, plot_threshold_curve
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

Kind = Literal["cams", "masks"]
Counts = ThresholdSweep | Confusion
C = TypeVar("C", ThresholdSweep, Confusion)
METRICS = "metrics.json"
FILES_PER_TASK = 32


@dataclass
class Tally(Generic[C]):
    """What has been counted: the pixels, the keys of the images, and what went wrong with others, by key."""

    counts: C
    keys: list[str]
    faults: dict[str, str]

    def __iadd__(self, other: "Tally[C]") -> "Tally[C]":
        self.counts += other.counts
        self.keys += other.keys
        self.faults |= other.faults
        return self


@dataclass(frozen=True)
class Task:
    """A shard, or some PNG files of a folder, for one worker."""

    kind: Kind
    folder: str
    names: tuple[str, ...]


def evaluate(experiment: Experiment, kind: Kind, rank: Rank, predictions: str = "") -> Report:
    """Score all predictions that have ground truth, in worker processes, in one pass.

    Writes the report under `kind` into `metrics.json` of the experiment's folder, and plots beside it.

    Args:
        experiment: whose source has the ground truth.
        kind: `cams` or `masks`.
        rank: who this process is; scoring is one process's work.
        predictions: folder of shards or of PNG masks; the experiment's own where it is empty.

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
    source = open_source(experiment.source, vocabulary)
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
    report = _report(tally, kind, experiment, vocabulary)
    _write(experiment, report, tally, source, vocabulary)
    return report


def _tasks(kind: Kind, folder: Folder) -> list[Task]:
    names = folder.names()
    shards = [name for name in names if name.endswith(".tar")]
    files = [name for name in names if name.endswith(".png")] if kind == "masks" else []
    if not shards and not files:
        wanted = "CAM shards" if kind == "cams" else "mask shards or PNG masks"
        raise SourceError(
            f"no {wanted} in '{folder.path}'; write them first, or name another folder with --predictions"
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
            _add(tally.counts, key, members)
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


def _add(counts: Counts, key: str, members: Members) -> None:
    truth = _source.ground_truth(_entries[key])
    if truth is None:
        raise BadSample("missing", f"no ground truth for '{key}'")
    if isinstance(counts, ThresholdSweep):
        scores = decode_cams(key, members).scores
        _check_size(key, scores.size, truth.labels.shape)
        counts.add(truth.labels, at_image_size(scores.maps, scores.size), scores.classes)
    else:
        prediction = read_mask(members["png"], f"predicted mask of '{key}'")
        _check_size(key, prediction.shape, truth.labels.shape)
        if not _vocabulary.has_background:
            prediction[prediction == BACKGROUND] = IGNORE  # no label was given, so that 0 is no class of the mean
        counts.add(truth.labels, prediction)


def _check_size(key: str, predicted: tuple[int, ...], true: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(true):
        raise BadSample("size_mismatch", f"'{key}': prediction is {predicted}, ground truth is {true} (height, width)")


def _empty(kind: Kind, vocabulary: Vocabulary) -> "Tally[Any]":
    counts = ThresholdSweep if kind == "cams" else Confusion
    return Tally(counts.empty(len(vocabulary)), [], {})


def _report(tally: Tally[Any], kind: Kind, experiment: Experiment, vocabulary: Vocabulary) -> Report:
    split, images = experiment.source.split, len(tally.keys)
    if isinstance(tally.counts, Confusion):
        return Report.of_masks(tally.counts, vocabulary.names, split, images)
    chosen = experiment.evaluate
    return Report.of_cams(tally.counts, vocabulary.names, split, images, chosen.threshold, chosen.threshold_chosen_on)


def _write(experiment: Experiment, report: Report, tally: Tally[Any], source: Source, vocabulary: Vocabulary) -> None:
    folder = Folder(experiment.out)
    folder.prepare()
    metrics = json.loads(folder.read_bytes(METRICS)) if folder.exists(METRICS) else {}
    scored = set(tally.keys)
    unscored = [entry.key for entry in source.entries if entry.key not in scored]
    metrics[report.kind] = {
        **report.to_dict(),
        "listed": len(source.entries),
        "not_scored": len(unscored),
        "faults": tally.faults,
    }
    folder.write_bytes(METRICS, encode_json(metrics))
    if experiment.evaluate.plots and folder.local is not None:
        _plot(report, tally.counts, experiment.evaluate.threshold, vocabulary, folder.local)


def _plot(report: Report, counts: Counts, threshold: float, vocabulary: Vocabulary, folder: Path) -> None:
    confusion = counts if isinstance(counts, Confusion) else counts.at(threshold)
    if report.curve is not None:
        plot_threshold_curve(report, folder / "cams-threshold.png")
    plot_class_iou(report, folder / f"{report.kind}-iou.png")
    plot_confusion(confusion, vocabulary.names, folder / f"{report.kind}-confusion.png")
