import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pseudolabel.config import Experiment
from pseudolabel.errors import OutputError, SampleError
from pseudolabel.io.folder import Folder
from pseudolabel.records import Sample
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.packing import TAR, Packing
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.job import Job, open_job
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.units import Unit, cut_units
from pseudolabel.vocabulary import load_vocabulary

BAD = "val_000003"
SETTINGS = {"inputs": {"count": 5, "sha256": "labels"}}


@pytest.fixture
def source(experiment: Experiment) -> Source:
    """Five images of Shapes."""
    return open_source(experiment.source, load_vocabulary("shapes"))


@contextmanager
def job_of(source: Source, out: Path, rank: Rank, packing: Packing = TAR) -> Iterator[Job[Entry]]:
    def keys(unit: Unit[Entry], without: frozenset[str]) -> str:
        return " ".join(entry.key for entry in unit.entries if entry.key not in without)

    units = cut_units(source.entries, 2)
    with open_job(Folder(str(out)), "cams", SETTINGS, units, keys, rank, packing=packing) as job:
        yield job


def sizes(samples: Iterable[Sample]) -> Iterator[tuple[Sample, int | SampleError]]:
    for sample in samples:
        yield sample, sample.image.width if sample.key != BAD else SampleError("prompt", "no word for it")


def encode(sample: Sample, size: int) -> dict[str, bytes]:
    return {"txt": f"{sample.key} {size}".encode()}


def test_every_sample_is_in_its_units_shard_or_its_ledger(source: Source, tmp_path: Path, one_rank: Rank) -> None:
    with job_of(source, tmp_path, one_rank) as job:
        work_through(job, source, 2, sizes, encode)
        summary = job.finish()
        entries = [job.ledger.entry(number) for number in range(3)]
    good = {entry.key for entry in source.entries} - {BAD}
    assert summary is not None
    assert (summary.samples, summary.shards, summary.statuses) == (4, 3, {"ok": 4, "prompt": 1})
    found: dict[str, bytes] = {}
    for number in range(3):
        with (tmp_path / f"cams-{number:06d}.tar").open("rb") as file:
            found |= {key: members["txt"] for key, members in TAR.read(file)}
    assert found == {key: f"{key} 128".encode() for key in good}
    assert [failure.key for entry in entries if entry is not None for failure in entry.failures] == [BAD]


def test_a_unit_is_written_while_the_next_one_is_processed(source: Source, tmp_path: Path, one_rank: Rank) -> None:
    first, second = threading.Event(), threading.Event()

    def work(samples: Iterable[Sample]) -> Iterator[tuple[Sample, int | SampleError]]:
        (second if first.is_set() else first).set()
        yield from sizes(samples)

    def write(file, samples) -> None:
        assert second.wait(timeout=60), "the next unit waits for the writing of this one"
        TAR.write(file, samples)

    with job_of(source, tmp_path, one_rank, Packing("tar", write, TAR.read)) as job:
        work_through(job, source, 2, work, encode)
        assert job.finish() is not None


def test_a_write_error_ends_the_job(source: Source, tmp_path: Path, one_rank: Rank) -> None:
    def write(file, samples) -> None:
        raise OSError("the disk is full")

    with (
        job_of(source, tmp_path, one_rank, Packing("tar", write, TAR.read)) as job,
        pytest.raises(OutputError, match="disk is full"),
    ):
        work_through(job, source, 2, sizes, encode)
    assert not list(tmp_path.glob("cams-*"))
