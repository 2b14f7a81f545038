"""A rank's way through its samples: read ahead, worked on unit by unit, written."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pseudolabel.errors import SampleError
from pseudolabel.io.tar import Members
from pseudolabel.records import Failure, Sample
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source
from pseudolabel.stages.job import Job
from pseudolabel.stages.units import Unit

R = TypeVar("R")
Work = Callable[[Iterable[Sample]], Iterator[tuple[Sample, R | SampleError]]]

READ_AHEAD = 64
ENCODED_AHEAD = 8


@dataclass(frozen=True)
class Done:
    """What has become of a unit's samples: what its shard is to hold, and the failures, both sorted by key."""

    unit: Unit[Entry]
    samples: list[tuple[str, Members]]
    failures: list[Failure]
    began: float


def work_through(
    job: Job[Entry], source: Source, loaders: int, work: Work[R], encode: Callable[[Sample, R], Members]
) -> None:
    """Do all units of this rank that are not done yet; what cannot be read or worked on is recorded as a failure.

    A unit is written in a thread while the next one is worked on; two at most are finished and not yet written.

    Args:
        job: takes the units' shards.
        source: the entries' images.
        loaders: threads that read and decode ahead, and as many that encode behind.
        work: gives every sample with its result, or with what is wrong with it, in their order.
        encode: the members of a sample in its shard.
    """
    pending = job.choose(job.rank.assigned(job.units))
    entries = (entry for unit in pending for entry in _unfinished(job, unit))
    read = prefetch(lambda entry: _read(source, entry), entries, loaders, READ_AHEAD)
    units = (_do_unit(job, unit, read, loaders, work, encode) for unit in pending)
    for _ in prefetch(lambda done: job.write(done.unit, done.samples, done.failures, done.began), units, 1, 1):
        pass


def _do_unit(
    job: Job[Entry],
    unit: Unit[Entry],
    read: Iterator[Sample | Failure],
    loaders: int,
    work: Work[R],
    encode: Callable[[Sample, R], Members],
) -> Done:
    began = time.monotonic()
    done = job.finished_samples(unit)
    failures: list[Failure] = []

    def readable() -> Iterator[Sample]:
        for _ in _unfinished(job, unit):
            result = next(read)
            if isinstance(result, Sample):
                yield result
            else:
                failures.append(result)

    def finish(pair: tuple[Sample, R | SampleError]) -> tuple[str, Members | SampleError]:
        sample, outcome = pair
        return sample.key, outcome if isinstance(outcome, SampleError) else encode(sample, outcome)

    for key, result in prefetch(finish, work(readable()), loaders, ENCODED_AHEAD):
        if isinstance(result, SampleError):
            origin = next(entry.origin for entry in unit.entries if entry.key == key)
            failures.append(Failure(key, origin, result.status, str(result)))
        else:
            done[key] = result
        job.poll(len(done) + len(failures))
    samples = [(entry.key, done[entry.key]) for entry in unit.entries if entry.key in done]
    failures.sort(key=lambda failure: failure.key)
    return Done(unit, samples, failures, began)


def _unfinished(job: Job[Entry], unit: Unit[Entry]) -> list[Entry]:
    """The unit's samples that are not in its shard: all of them where there is none."""
    kept = job.kept(unit)
    missing = {failure.key for failure in kept.failures} if kept is not None else set()
    return [entry for entry in unit.entries if kept is None or entry.key in missing]


def _read(source: Source, entry: Entry) -> Sample | Failure:
    try:
        return source.read(entry)
    except SampleError as error:
        return Failure(entry.key, entry.origin, error.status, str(error))
