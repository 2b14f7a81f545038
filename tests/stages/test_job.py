import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.records import Failure
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.ledger import INDEX, RUN, entry_name
from pseudolabel.shards.others import SUMMARY
from pseudolabel.shards.packing import TAR
from pseudolabel.shards.verify import verify
from pseudolabel.stages.job import Job, open_job
from pseudolabel.stages.units import Unit

SETTINGS = {"inputs": {"count": 6, "sha256": "labels"}, "seed": 0}
UNITS = [Unit(0, ("a", "b")), Unit(1, ("c", "d")), Unit(2, ("e", "f"))]


def rank_of(index: int, count: int) -> Rank:
    return Rank(index, count, count, torch.device("cpu"))


def inputs_of(unit: Unit[str], without: frozenset[str]) -> str:
    return " ".join(key for key in unit.entries if key not in without)


@contextmanager
def job_in(path: Path, rank: Rank | None = None, retry: bool = False, inputs=inputs_of) -> Iterator[Job[str]]:
    with open_job(Folder(str(path)), "cams", SETTINGS, UNITS, inputs, rank or rank_of(0, 1), retry) as job:
        yield job


def do(job: Job[str], unit: Unit[str], bad: str = "") -> None:
    samples = [(key, {"txt": key.encode()}) for key in unit.entries if key not in bad]
    failures = [Failure(key, "list", "truncated", f"{key} ends early") for key in unit.entries if key in bad]
    job.write(unit, samples, failures, time.monotonic())


def numbers(units: list[Unit[str]]) -> list[int]:
    return [unit.number for unit in units]


def test_a_stopped_job_resumes(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        assert numbers(job.choose(UNITS)) == [0, 1, 2]
        do(job, UNITS[1])
        assert job.finish() is None
    assert not (tmp_path / INDEX).exists()
    with job_in(tmp_path) as job:
        assert numbers(job.choose(UNITS)) == [0, 2]
        assert job.progress.done == 2
        do(job, UNITS[0])
        do(job, UNITS[2])
        summary = job.finish()
    assert summary is not None
    assert (summary.samples, summary.shards, summary.statuses, summary.exit_status) == (6, 3, {"ok": 6}, 0)
    index = json.loads((tmp_path / INDEX).read_text())
    assert [shard["samples"] for shard in index["shards"]] == [2, 2, 2]


def test_a_run_that_finds_all_done_keeps_the_summary(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit)
        first = job.finish()
    written = (tmp_path / SUMMARY).read_bytes()
    assert first is not None
    assert first.samples_per_second > 0
    with job_in(tmp_path) as job:
        assert job.finish() == first
    assert (tmp_path / SUMMARY).read_bytes() == written
    (tmp_path / SUMMARY).write_bytes(b"{")  # damaged
    with job_in(tmp_path) as job:
        again = job.finish()
    assert again == replace(first, seconds=again.seconds, samples_per_second=0.0)
    (tmp_path / entry_name("cams", 1)).unlink()
    (tmp_path / SUMMARY).write_text(json.dumps({**json.loads(written), "seconds": 1e6}))
    with job_in(tmp_path) as job:
        do(job, UNITS[1])
        redone = job.finish()
    assert redone.samples == first.samples
    assert json.loads((tmp_path / SUMMARY).read_bytes())["seconds"] == redone.seconds < 1e6


def test_the_last_rank_finishes(tmp_path: Path) -> None:
    first, second = rank_of(0, 2), rank_of(1, 2)
    with job_in(tmp_path, first) as one, job_in(tmp_path, second) as other:
        assert numbers(one.choose(first.assigned(UNITS))) == [0, 2]
        assert numbers(other.choose(second.assigned(UNITS))) == [1]
        do(one, UNITS[0])
        do(one, UNITS[2])
        assert one.finish() is None
        do(other, UNITS[1])
        assert other.finish() is not None
    assert [Path(name).suffix for name in Folder(str(tmp_path)).names()].count(".tar") == 3


def test_one_of_several_ranks_that_end_together_finishes(tmp_path: Path) -> None:
    """Every unit is done already: all of them find the job finished, in whatever order they come."""
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit)
    for run in ("first", "second"):
        ranks = [replace(rank_of(index, 3), run=run) for index in range(3)]
        for _ in range(2):  # as a program does that calls the stage twice
            with ExitStack() as stack:
                jobs = [stack.enter_context(job_in(tmp_path, rank)) for rank in ranks]
                assert [job.finish() is not None for job in (jobs[1], jobs[0], jobs[2])] == [True, False, False]
    assert len(list(tmp_path.glob(".reported-*"))) == 2  # of the last run alone


def test_the_first_rank_sees_the_progress_of_all(tmp_path: Path) -> None:
    with job_in(tmp_path, rank_of(0, 2)) as one, job_in(tmp_path, rank_of(1, 2)) as other:
        do(other, UNITS[1], bad="d")
        one._polled = float("-inf")  # the two seconds between polls are over
        one.poll(1)
        assert (one.progress.done, one.progress.failures) == (3, 1)
        assert (other.progress.done, other.progress.failures) == (0, 0)


def test_every_unit_counts_once(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        do(job, UNITS[0], bad="a")
    with job_in(tmp_path) as job:
        do(job, UNITS[1], bad="d")
        for _ in range(3):
            job._looked = float("-inf")
            job.poll(1)
            assert (job.progress.done, job.progress.failures) == (5, 2)
        assert job.choose(UNITS) == [UNITS[2]]


def test_an_entry_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit)
    read, read_bytes = [], Folder.read_bytes
    monkeypatch.setattr(Folder, "read_bytes", lambda folder, name: read.append(name) or read_bytes(folder, name))
    with job_in(tmp_path) as job:
        job._looked = float("-inf")
        job.poll(0)
        assert job.choose(job.rank.assigned(UNITS)) == []
    assert sorted(name for name in read if name != RUN) == [entry_name("cams", unit.number) for unit in UNITS]


def test_failures_are_counted_and_not_repeated(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="bf")
        summary = job.finish()
    assert summary is not None
    assert (summary.failed, summary.exit_status, summary.statuses) == (2, 3, {"ok": 4, "truncated": 2})
    with job_in(tmp_path) as job:
        assert job.choose(UNITS) == []


def test_a_job_without_finished_samples_leaves_its_folder_free(tmp_path: Path) -> None:
    """Its entries go when other settings come, those beyond the new list's end as well; until then they stay."""
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="abcdef")
        summary = job.finish()
    assert summary is not None
    assert (summary.samples, summary.exit_status) == (0, 3)
    assert summary.first_failures == {"truncated": ["a: a ends early", "b: b ends early"]}
    with job_in(tmp_path) as job:
        assert job.choose(UNITS) == []
    settings = {"inputs": {"count": 2, "sha256": "labels"}, "seed": 1}
    with open_job(Folder(str(tmp_path)), "cams", settings, UNITS[:1], inputs_of, rank_of(0, 1)) as job:
        assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [RUN, "summary.json"]
        assert job.choose(UNITS[:1]) == UNITS[:1]
        do(job, UNITS[0], bad="a")
        assert job.finish().statuses == {"ok": 1, "truncated": 1}
    with pytest.raises(OutputError, match=r"other settings:\n  inputs.count: 2 -> 6\n  seed: 1 -> 0"), job_in(tmp_path):
        pytest.fail("a sample is done now")


def test_other_ranks_wait_until_the_first_has_cleared_the_folder(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="abcdef")
        job.finish()
    settings = {**SETTINGS, "seed": 1}
    begun = threading.Event()

    def begin_second() -> list[int]:
        begun.set()
        with open_job(Folder(str(tmp_path)), "cams", settings, UNITS, inputs_of, rank_of(1, 2)) as job:
            return numbers(job.choose(UNITS))

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(begin_second)
        assert begun.wait(60)
        assert not second.done()
        with open_job(Folder(str(tmp_path)), "cams", settings, UNITS, inputs_of, rank_of(0, 2)) as job:
            do(job, UNITS[0])
            assert second.result(60) in ([0, 1, 2], [1, 2])


def test_a_retry_repeats_only_failed_samples(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="b")
        job.finish()
    with job_in(tmp_path, retry=True) as job:
        assert numbers(job.choose(UNITS)) == [0]
        assert job.finished_samples(UNITS[0]) == {"a": {"txt": b"a"}}
        assert job.finish() is None
        assert verify(job.ledger.folder)[0] == "cams-000000.tar: the retry of its failed samples is not finished"
    with job_in(tmp_path) as job:  # the retry was stopped: what it has begun is still to be done
        assert numbers(job.choose(UNITS)) == [0]
        assert job.finished_samples(UNITS[0]) == {"a": {"txt": b"a"}}
        do(job, UNITS[0])
        summary = job.finish()
    assert summary is not None
    assert summary.exit_status == 0


def test_a_rank_without_failures_does_not_end_the_retry_of_another(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="d")
        job.finish()
    with job_in(tmp_path, rank_of(1, 2), retry=True) as other, job_in(tmp_path, rank_of(0, 2), retry=True) as one:
        assert one.choose(one.rank.assigned(UNITS)) == []
        assert one.finish() is None
        do(other, UNITS[1])
        summary = other.finish()
    assert summary is not None
    assert summary.statuses == {"ok": 6}
    assert json.loads((tmp_path / INDEX).read_text())["samples"] == 6


def test_skipped_samples_are_not_retried(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        do(job, UNITS[0])
        job.write(UNITS[1], [("c", {"txt": b"c"})], [Failure("d", "list", "unlabelled", "none")], time.monotonic())
        do(job, UNITS[2])
        summary = job.finish()
    assert summary is not None
    assert (summary.failed, summary.exit_status, summary.statuses) == (0, 0, {"ok": 5, "unlabelled": 1})
    with job_in(tmp_path, retry=True) as job:
        assert job.choose(UNITS) == []


def test_a_unit_whose_inputs_changed_is_done_again(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit, bad="a")
    changed = {"a": "A", "c": "C"}
    relabelled = [replace(unit, entries=tuple(changed.get(key, key) for key in unit.entries)) for unit in UNITS]
    with job_in(tmp_path) as job:
        assert numbers(job.choose(relabelled)) == [0, 1]

    def corrected(unit: Unit[str], without: frozenset[str]) -> str:
        return inputs_of(unit, without).replace("a", "its new label")

    with job_in(tmp_path, inputs=corrected) as job:  # a failed sample's inputs are not among the shard's
        assert job.choose(UNITS) == []


def test_a_damaged_shard_is_done_again(tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        for unit in UNITS:
            do(job, unit)
    (tmp_path / "cams-000001.tar").write_bytes(b"cut")
    (tmp_path / "cams-000002.json").write_bytes(b"{")
    with job_in(tmp_path) as job:
        assert numbers(job.choose(UNITS)) == [1, 2]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = [tmp_path / f".unfinished-cams-00000{number}.tar-x1y2" for number in (0, 1)]
    for path in left:
        path.write_bytes(b"half")
    with job_in(tmp_path, rank_of(1, 2)):
        assert [path.exists() for path in left] == [True, False]  # the first is another rank's


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with job_in(tmp_path), pytest.raises(OutputError, match="another run writes to"), job_in(tmp_path):
        pytest.fail("the second one came in")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_shard_edited_by_hand_is_not_overwritten(tmp_path: Path, is_damaged: bool) -> None:
    with job_in(tmp_path) as job:
        do(job, UNITS[0], bad="b")
    shard, corrected = tmp_path / "cams-000000.tar", io.BytesIO()
    TAR.write(corrected, [("a", {"txt": b"corrected" * 2000})])
    content = corrected.getvalue()[:900] if is_damaged else corrected.getvalue()
    shard.write_bytes(content)
    with job_in(tmp_path, retry=True) as job:
        if is_damaged:
            do(job, UNITS[0])
        else:
            with pytest.raises(OutputError, match=r"cams-000000\.tar' was changed since it was written"):
                do(job, UNITS[0])
    assert (shard.read_bytes() == content) is not is_damaged
