"""A rank's way through its samples: read ahead, worked on unit by unit, written."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pseudolabel.records import Sample
from pseudolabel.shards.ledger import Failure
from pseudolabel.shards.tar import Members
from pseudolabel.sources.entry import BadSample, Entry
from pseudolabel.sources.source import Source
from pseudolabel.stages.job import Job
from pseudolabel.stages.prefetch import prefetch
from pseudolabel.stages.units import Unit

R = TypeVar("R")
Work = Callable[[list[Sample]], Iterator[tuple[Sample, R | BadSample]]]

READ_AHEAD = 64


def work_through(
    job: Job[Entry], source: Source, loaders: int, work: Work[R], encode: Callable[[Sample, R], Members]
) -> None:
    """Do all units of this rank that are not done yet; what cannot be read or worked on is recorded as a failure.

    Args:
        job: takes the units' shards.
        source: the entries' images.
        loaders: threads that read and decode ahead.
        work: gives every sample with its result, or with what is wrong with it, in their order.
        encode: the members of a sample in its shard.
    """
    pending = job.choose(job.rank.share(job.units))
    entries = (entry for unit in pending for entry in _unfinished(job, unit))
    read = prefetch(lambda entry: _read(source, entry), entries, loaders, READ_AHEAD)
    for unit in pending:
        _do_unit(job, unit, read, work, encode)


def _do_unit(
    job: Job[Entry],
    unit: Unit[Entry],
    read: Iterator[Sample | Failure],
    work: Work[R],
    encode: Callable[[Sample, R], Members],
) -> None:
    began = time.monotonic()
    done = job.finished_samples(unit)
    results = [next(read) for _ in _unfinished(job, unit)]
    failures = [result for result in results if isinstance(result, Failure)]
    for sample, outcome in work([result for result in results if isinstance(result, Sample)]):
        if isinstance(outcome, BadSample):
            origin = next(entry.origin for entry in unit.entries if entry.key == sample.key)
            failures.append(Failure(sample.key, origin, outcome.status, str(outcome)))
        else:
            done[sample.key] = encode(sample, outcome)
        job.look(len(done) + len(failures))
    samples = [(entry.key, done[entry.key]) for entry in unit.entries if entry.key in done]
    failures.sort(key=lambda failure: failure.key)
    job.write(unit, samples, failures, began)


def _unfinished(job: Job[Entry], unit: Unit[Entry]) -> list[Entry]:
    """The unit's samples that are not in its shard: all of them where there is none."""
    kept = job.kept(unit)
    missing = {failure.key for failure in kept.failures} if kept is not None else set()
    return [entry for entry in unit.entries if kept is None or entry.key in missing]


def _read(source: Source, entry: Entry) -> Sample | Failure:
    try:
        return source.read(entry)
    except BadSample as error:
        return Failure(entry.key, entry.origin, error.status, str(error))
