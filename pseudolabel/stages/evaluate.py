"""The scoring stage: shards of CAMs, masks or segments, or a folder of PNGs, against ground truth."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pseudolabel.config import Experiment
from pseudolabel.errors import NothingScoredError, SampleError, SettingError, SourceError
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.evaluation.scope import ADJUSTED, Scope
from pseudolabel.io.files import Location, join, read_bytes
from pseudolabel.io.folder import Folder
from pseudolabel.io.metrics import check_metrics, record_metrics
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.tar import Members, read_tar
from pseudolabel.records import BACKGROUND, IGNORE, Failure, Kind
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.progress import show_progress
from pseudolabel.runtime.rank import Rank
from pseudolabel.runtime.workers import open_pool
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.predictions import AMBIGUOUS, NO_PREDICTION, Predictions, find_predictions
from pseudolabel.stages.scorers import SCORERS, Scorer
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.vocabulary import Vocabulary

FILES_PER_TASK = 32


@dataclass
class Tally:
    """What has been scored.

    Attributes:
        scorer: of the kind.
        keys: of the scored images.
        failures: of others, by key.
        unlisted: keys of predictions that are of no listed image.
        unreadable: shards that could not be read to their end, with the reason.
        regions: what adjusted masks, by their JSON members (`refine.regions`).
    """

    scorer: Scorer
    keys: list[str] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    regions: set[str] = field(default_factory=set)

    def __iadd__(self, other: "Tally") -> "Tally":
        self.scorer += other.scorer
        self.keys += other.keys
        self.failures |= other.failures
        self.unlisted += other.unlisted
        self.unreadable += other.unreadable
        self.regions |= other.regions
        return self


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
        SettingError: if there is no such kind, or CAMs are to be scored without a background that they could be cut
            from.
        NotOursError: if `metrics.json` or a plot is there that this package did not write.
    """
    if kind not in SCORERS:
        raise SettingError(f"`kind` '{kind}': give one of {', '.join(SCORERS)}")
    vocabulary = choose_vocabulary(experiment)
    if kind == "cams" and not vocabulary.has_background:
        raise SettingError(
            f"class activation maps are scored against background, which vocabulary '{vocabulary.name}' lacks; "
            "score masks instead"
        )
    source = open_source(replace(experiment.source, labels="none"), vocabulary)  # scores need the masks alone
    if not source.has_ground_truth:
        raise SourceError(
            f"'{experiment.source.path}' has no ground-truth masks; name their folder with `source.masks`"
        )
    check_metrics(experiment.out, SCORERS[kind].plots if experiment.evaluate.plots else ())
    found = find_predictions(kind, Folder(predictions or f"{experiment.out}/{kind}"), source.entries)
    tally = Tally(SCORERS[kind](vocabulary))
    workers = experiment.work.workers or rank.cores()
    with (
        open_pool(workers, _remember, (source, vocabulary)) as pool,
        show_progress(f"evaluate {kind}", len(source.entries)) as progress,
    ):
        for part in pool.map(_score, _tasks(kind, found)):
            tally += part
            progress.update(len(tally.keys), len(tally.failures))
    scope = _scope(tally, found, source, vocabulary)
    if not tally.keys:
        raise NothingScoredError("\n".join([f"nothing was scored in '{found.folder.path}'", *scope.lines()]))
    config, split = experiment.evaluate, experiment.source.split
    report = replace(tally.scorer.report(split, len(tally.keys), config), scope=scope)
    record_metrics(experiment.out, report.kind, report.to_dict())
    if config.plots:
        OwnFiles(Folder(experiment.out)).write(tally.scorer.draw(report, config))
    return report


def _tasks(kind: Kind, found: Predictions) -> list[Task]:
    if found.shards:
        return [Task(kind, found.folder.path, name) for name in found.shards]
    return [Task(kind, found.folder.path, files=files) for files in batched(found.files.items(), FILES_PER_TASK)]


def _scope(tally: Tally, found: Predictions, source: Source, vocabulary: Vocabulary) -> Scope:
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
    has_classes = bool(tally.scorer.true - {BACKGROUND, IGNORE})
    if tally.keys and not has_classes:
        effect = "mIoU is over background alone" if vocabulary.has_background else "nothing is scored"
        warnings.append(_no_class("ground truth", effect, tally.scorer.true, vocabulary))
    elif tally.scorer.predicted and not tally.scorer.predicted - {BACKGROUND, IGNORE}:
        warnings.append(_no_class("predictions", "every class is missed", tally.scorer.predicted, vocabulary))
    return Scope(
        len(source.entries),
        not_scored,
        [*found.unlisted, *tally.unlisted],
        found.left_out,
        warnings,
        is_empty=bool(tally.keys) and not has_classes,
        regions=min(tally.regions, default=""),
    )


def _no_class(what: str, effect: str, labels: set[int], vocabulary: Vocabulary) -> str:
    if IGNORE not in labels:
        return f"no class in the {what} of the scored images, only 0 (background): {effect}"
    return (
        f"no class in the {what} of the scored images, only 0 and 255: {effect}. 255 stands for pixels that are "
        f"ignored; a class is written as its number, 1 for '{vocabulary.names[1]}'"
    )


# The workers' copies, set when they start.
_source: Source
_vocabulary: Vocabulary
_entries: dict[str, Entry]


def _remember(source: Source, vocabulary: Vocabulary) -> None:
    global _source, _vocabulary, _entries
    _source, _vocabulary = source, vocabulary
    _entries = {entry.key: entry for entry in source.entries}


def _score(task: Task) -> Tally:
    tally = Tally(SCORERS[task.kind](_vocabulary))
    try:
        for key, members in _members(task, tally):
            if key in _entries:
                _score_image(tally, key, members)
            else:
                tally.unlisted.append(key)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        tally.unreadable.append(f"{task.shard}' cannot be read to its end ({error}); its last images are not scored")
    return tally


def _score_image(tally: Tally, key: str, members: Members) -> None:
    try:
        truth = _source.ground_truth(_entries[key])
        if truth is None:
            raise SampleError("no ground truth", _source.lacks_ground_truth(_entries[key]))
        tally.scorer.add(key, members, truth.labels)
    except (SampleError, ValueError) as error:
        _fail(tally, key, error)
    else:
        tally.keys.append(key)
        tally.regions |= _regions(members)


def _regions(members: Members) -> set[str]:
    """The mark of a mask that regions adjusted; other programs' shards may hold any JSON, or none."""
    try:
        fields = json.loads(members.get("json", b"{}"))
    except ValueError:
        return set()
    mark = fields.get("regions") if isinstance(fields, dict) else None
    return {mark} & ADJUSTED.keys() if isinstance(mark, str) else set()


def _fail(tally: Tally, key: str, error: SampleError | ValueError) -> None:
    status = error.status if isinstance(error, SampleError) else "invalid"
    tally.failures[key] = Failure(key, _entries[key].origin, status, str(error))


def _members(task: Task, tally: Tally) -> Iterator[tuple[str, Members]]:
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
