"""The loop of a rank over its samples: read ahead, process unit by unit, write."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from pseudolabel.errors import SampleError
from pseudolabel.io.tar import Members
from pseudolabel.records import Failure, Sample
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source
from pseudolabel.stages.job import Job
from pseudolabel.stages.units import Unit

R = TypeVar("R")
View = Callable[[Image.Image], Any]
Work = Callable[[Iterable[Sample]], Iterator[tuple[Sample, R | SampleError]]]

READ_AHEAD = 64
ENCODED_AHEAD = 8


@dataclass(frozen=True)
class Done:
    """The results of a unit: the samples of its shard, and the failures, both sorted by key."""

    unit: Unit[Entry]
    samples: list[tuple[str, Members]]
    failures: list[Failure]
    began: float


def work_through(
    job: Job[Entry],
    source: Source,
    loaders: int,
    work: Work[R],
    encode: Callable[[Sample, R], Members],
    view: View | None = None,
) -> None:
    """Process all units of this rank that are not done yet; samples that cannot be processed are recorded as failures.

    A unit is written in a thread while the next one is processed; at most two are finished and not yet written.

    Args:
        job: writes the shards of the units.
        source: reads the images of the entries.
        loaders: threads that read and decode ahead, and as many that encode results.
        work: gives every sample with its result or its failure, once and in order.
        encode: gives the members of a sample in its shard.
        view: takes from a decoded image what `work` needs, for `Sample.view`; the image itself is not kept.
    """
    pending = job.choose(job.rank.assigned(job.units))
    entries = (entry for unit in pending for entry in _unfinished(job, unit))
    read = prefetch(lambda entry: _read(source, entry, view), entries, loaders, READ_AHEAD)
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
    assert len(samples) + len(failures) == len(unit.entries), "a sample was lost, or came twice"
    failures.sort(key=lambda failure: failure.key)
    return Done(unit, samples, failures, began)


def _unfinished(job: Job[Entry], unit: Unit[Entry]) -> list[Entry]:
    """The unit's samples that are not in its shard; all of them if it has none."""
    kept = job.kept(unit)
    missing = {failure.key for failure in kept.failures} if kept is not None else set()
    return [entry for entry in unit.entries if kept is None or entry.key in missing]


def _read(source: Source, entry: Entry, view: View | None) -> Sample | Failure:
    try:
        return source.read(entry, view)
    except SampleError as error:
        return Failure(entry.key, entry.origin, error.status, str(error))
