"""A job: work units written as shards into one output folder, by any number of processes, in one or several runs."""

import hashlib
import io
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO, Generic, TypeVar, cast

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.lock import lock_output
from pseudolabel.io.reasons import first_by_reason
from pseudolabel.io.tar import Members
from pseudolabel.records import Failure
from pseudolabel.runtime.progress import ProgressLine, show_progress
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.classes import class_names
from pseudolabel.shards.corrections import Corrections, corrections_of
from pseudolabel.shards.ledger import INDEX, NOTHING, SKIPPED, Ledger, LedgerEntry, entry_name, shard_name
from pseudolabel.shards.others import SUMMARY, check_shard_folder
from pseudolabel.shards.packing import TAR, DigestedFile, Packing
from pseudolabel.shards.scores import SCORES, write_scores
from pseudolabel.stages.summary import OK, Summary
from pseudolabel.stages.units import Unit

log = logging.getLogger(__name__)

T = TypeVar("T")
InputsOf = Callable[[Unit[T], frozenset[str]], str]

POLL_SECONDS = 2.0
POLL_PAUSE = 20.0  # pause between polls, in durations of the last poll
NOTHING_LEFT_OUT = LeftOut()
TABLES = {"masks": {SCORES: write_scores}}


@dataclass
class Job(Generic[T]):
    """The units of one output folder and their state; `open_job` opens it.

    Attributes:
        ledger: ledger of the output folder.
        units: all units of the job, of every rank.
        inputs_of: digest of a unit's inputs, leaving out failed samples; a finished unit with another digest is done
            again.
        packing: file format of the shards.
        left_out: files that the source left out, counted by reason, for the summary.
        claim: name of the file that decides which of several ranks writes the summary.
        corrections: people's masks, which replace those that are to be written; None for shards without masks.
        names: of the classes by label.
    """

    ledger: Ledger
    units: Sequence[Unit[T]]
    inputs_of: InputsOf[T]
    fingerprint: str
    rank: Rank
    progress: ProgressLine
    packing: Packing = TAR
    left_out: LeftOut = field(default_factory=LeftOut)
    claim: str = ""
    corrections: Corrections | None = None
    names: Sequence[str] = ()
    started: float = field(default_factory=time.monotonic)
    _stored: dict[int, LedgerEntry] = field(default_factory=dict)  # every entry read so far
    _done: dict[int, Unit[T]] = field(default_factory=dict)
    _done_samples: int = 0
    _failures: int = 0
    _written: int = 0
    _polled: float = 0.0
    _poll_every: float = POLL_SECONDS
    _lock: threading.Lock = field(default_factory=threading.Lock)  # a unit may be written in another thread

    def choose(self, units: Sequence[Unit[T]]) -> list[Unit[T]]:
        """Those units that are not done yet."""
        self._read(units)
        return [unit for unit in units if not self._is_done(unit)]

    def finished_samples(self, unit: Unit[T]) -> dict[str, Members]:
        """Members by key in the shard of a reopened unit, which a retry keeps; empty if all samples are to be done."""
        entry = self.kept(unit)
        if entry is None:
            return {}
        with self.ledger.folder.open(entry.shard) as file:
            return dict(self.packing.read(file))

    def kept(self, unit: Unit[T]) -> LedgerEntry | None:
        """The entry of a reopened unit, of which only the failed samples are to be done; None for other units."""
        entry = self._stored.get(unit.number)
        return entry if entry is not None and entry.reopened and self._fits(entry, unit) else None

    def _is_done(self, unit: Unit[T]) -> bool:
        return self._done.get(unit.number) == unit

    def _read(self, units: Sequence[Unit[T]]) -> None:
        """Read the ledger entries of those units that are not known to be done."""
        undone = {unit.number: unit for unit in units if not self._is_done(unit)}
        for number, entry in self.ledger.read(undone.keys()).items():
            self._note(undone[number], entry)

    def _note(self, unit: Unit[T], entry: LedgerEntry) -> None:
        is_complete = self._is_complete(entry, unit)
        with self._lock:
            self._stored[unit.number] = entry
            if is_complete and unit.number not in self._done:
                self._done_samples += len(unit.entries)
                self._failures += len(failed_keys(entry))
            if is_complete:
                self._done[unit.number] = unit

    def _is_complete(self, entry: LedgerEntry | None, unit: Unit[T]) -> bool:
        return entry is not None and not entry.reopened and self._fits(entry, unit)

    def _fits(self, entry: LedgerEntry, unit: Unit[T]) -> bool:
        return entry.inputs == self.inputs_of(unit, failed_keys(entry))

    def write(
        self, unit: Unit[T], samples: Sequence[tuple[str, Members]], failures: Sequence[Failure], began: float
    ) -> LedgerEntry:
        """Write a unit's shard, then its ledger entry."""
        name = shard_name(self.ledger.kind, unit.number, self.packing.suffix)
        self._keep_changed(unit, name)
        corrected = 0
        if self.corrections is not None:
            samples, corrected = self.corrections.apply(samples, self.names)
        with self.ledger.folder.write(name) as file:
            shard = DigestedFile(file)
            self.packing.write(cast(BinaryIO, shard), samples)
        statuses = Counter({OK: len(samples)}) + Counter(failure.status for failure in failures)
        failed = frozenset(failure.key for failure in failures if failure.status != SKIPPED)
        entry = LedgerEntry(
            unit=unit.number,
            shard=name,
            samples=len(samples),
            statuses=dict(statuses),
            failures=tuple(failures),
            size=shard.size,
            sha256=shard.sha256,
            inputs=self.inputs_of(unit, failed),
            fingerprint=self.fingerprint,
            seconds=round(time.monotonic() - began, 3),
            corrected=corrected,
        )
        self.ledger.write(entry)
        self._note(unit, entry)
        self._written += len(unit.entries)
        self.poll(0)
        return entry

    def _keep_changed(self, unit: Unit[T], name: str) -> None:
        """Make sure that a shard that was changed by hand is not overwritten; a damaged one may be.

        Raises:
            OutputError: if the shard can be read and its sha256 is not the ledger's.
        """
        folder, known = self.ledger.folder, self.ledger.recorded(unit.number)
        if known is None or not folder.exists(name):
            return
        data = folder.read_bytes(name)
        if hashlib.sha256(data).hexdigest() == known.sha256:
            return
        try:
            is_readable = len(list(self.packing.read(io.BytesIO(data)))) >= known.samples > 0
        except Exception:  # damaged bytes make readers raise any error
            return
        if is_readable:
            raise OutputError(
                f"'{folder.path}/{name}' was changed since it was written, so it is not overwritten; move it away to "
                f"have it written again, or choose another {folder.setting}"
            )

    def poll(self, in_progress: int) -> None:
        """Update the progress of all ranks; `in_progress` is the number of samples done in this rank's current unit."""
        if not self.rank.is_main:
            return
        if time.monotonic() - self._polled >= self._poll_every:
            self._survey()
        self.progress.update(self._done_samples + in_progress, self._failures)

    def _survey(self) -> None:
        """Read what other ranks have done; less often where reading takes long."""
        self._polled = time.monotonic()
        self._read(self.units)
        self._poll_every = max(POLL_SECONDS, POLL_PAUSE * (time.monotonic() - self._polled))

    def finish(self) -> Summary | None:
        """Write the index and the summary, by one rank alone, if every unit of every rank is done; else None.

        A run that finds everything done keeps the time and the rate of the one that did it.
        """
        numbers = {unit.number for unit in self.units}
        if not numbers <= self.ledger.units():
            return None
        stored = self.ledger.read(numbers)  # read again: other ranks may have written units again
        entries = [stored[unit.number] for unit in self.units if self._is_complete(stored.get(unit.number), unit)]
        if len(entries) < len(self.units):
            return None
        if self.claim and not self.ledger.folder.claim(self.claim):
            return None  # another rank, which finished at the same time, writes them
        is_new = write_index(self.ledger, entries, self.fingerprint) or self._written > 0
        seconds = time.monotonic() - self.started
        statuses = sum((Counter(entry.statuses) for entry in entries), Counter())
        summary = Summary(
            kind=self.ledger.kind,
            out=self.ledger.folder.path,
            samples=sum(entry.samples for entry in entries),
            statuses=dict(sorted(statuses.items())),
            shards=len(entries),
            seconds=round(seconds, 2),
            samples_per_second=round(self._written * self.rank.count / seconds, 3),
            left_out=dict(self.left_out.reasons),
            first_failures=first_by_reason(
                (failure.status, f"{failure.key}: {failure.message}") for entry in entries for failure in entry.failures
            ),
        )
        if not is_new:
            summary = self._with_stored_time(summary)
        self.ledger.folder.write_bytes(SUMMARY, encode_json(asdict(summary)))
        return summary

    def _with_stored_time(self, summary: Summary) -> Summary:
        """With the time and the rate of the summary in the folder; as it is if there is none, or it is damaged."""
        try:
            stored = json.loads(self.ledger.folder.read_bytes(SUMMARY))
            seconds, rate = float(stored["seconds"]), float(stored["samples_per_second"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return summary
        return replace(summary, seconds=seconds, samples_per_second=rate)


def write_index(ledger: Ledger, entries: list[LedgerEntry], fingerprint: str) -> bool:
    """Write the index, and before it the tables that belong to it where it is new or one of them is missing.

    Returns:
        Whether it is new.
    """
    folder, index = ledger.folder, ledger.index(entries, fingerprint)
    is_new = not folder.exists(INDEX) or folder.read_bytes(INDEX) != index
    for name, write_table in TABLES.get(ledger.kind, {}).items():
        if is_new or not folder.exists(name):
            with folder.write(name) as file:
                write_table(folder, entries, file)
    if is_new:
        folder.write_bytes(INDEX, index)
    return is_new


@contextmanager
def open_job(
    folder: Folder,
    kind: str,
    settings: Mapping[str, Any],
    units: Sequence[Unit[T]],
    inputs_of: InputsOf[T],
    rank: Rank,
    retry_failed: bool = False,
    packing: Packing = TAR,
    left_out: LeftOut = NOTHING_LEFT_OUT,
    about: Mapping[str, Any] = NOTHING,
) -> Iterator[Job[T]]:
    """Open a job in an output folder: lock the folder, check the run's settings, show progress on the first rank.

    With `retry_failed` this rank's units with failed samples are reopened, and all ranks wait for each other, so that
    none finds the job finished before the others have reopened theirs.

    Args:
        folder: the output folder; it is created.
        kind: first part of the shards' names, such as `cams`.
        settings: everything that the shards' meaning depends on; its digest is the run's fingerprint.
        units: all units of the job, of every rank.
        inputs_of: see `Job`.
        rank: this process.
        retry_failed: retry the failed samples of finished units.
        packing: file format of the shards.
        left_out: see `Job`.
        about: settings that may differ when the run resumes, such as the batch size; the first rank logs changes.

    Raises:
        OutputError: if the folder cannot be written, another run is at work there, or it holds other settings' shards.
    """
    folder.prepare()
    with lock_output(folder, rank.index):
        check_shard_folder(folder, kind)
        ledger = Ledger(folder, kind)
        fingerprint = ledger.start(settings, relabelled=retry_failed, is_main=rank.is_main, about=about)
        if rank.is_main and (changes := ledger.changes(about)):
            log.info("%s: the run resumes with %s", kind, ", ".join(changes))
        claim = rank.open_claim(folder)
        _clear(ledger, packing, rank.assigned(units), retry_failed)
        if retry_failed:
            rank.barrier()
        total = sum(len(unit.entries) for unit in units)
        with show_progress(kind, total, show=rank.is_main) as progress:
            corrections = corrections_of(folder) if kind == "masks" else None
            names = class_names(settings) if kind == "masks" else ()
            job = Job(
                ledger, units, inputs_of, fingerprint, rank, progress, packing, left_out, claim, corrections, names
            )
            job.poll(0)
            progress.restart()
            yield job


def _clear(ledger: Ledger, packing: Packing, units: Sequence[Unit[T]], retry_failed: bool) -> None:
    """Remove temporary files that a killed run left of these units; to retry, reopen those with failed samples."""
    kind, folder = ledger.kind, ledger.folder
    shards = {shard_name(kind, unit.number, packing.suffix) for unit in units}
    folder.sweep(shards | {entry_name(kind, unit.number) for unit in units})
    for entry in ledger.read({unit.number for unit in units}).values() if retry_failed else ():
        if failed_keys(entry) and not entry.reopened:
            ledger.reopen(entry)


def failed_keys(entry: LedgerEntry) -> frozenset[str]:
    """Keys of the samples that failed, without those left out by choice."""
    return frozenset(failure.key for failure in entry.failures if failure.status != SKIPPED)
