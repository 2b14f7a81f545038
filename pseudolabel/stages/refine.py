"""The refining stage: from shards of class activation maps to shards of pseudo-masks, by DenseCRF."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pseudolabel.config import Experiment
from pseudolabel.crf.engines import crf_settings, resolve_engine
from pseudolabel.errors import NoCamsError, SampleError, StoppedError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members, read_tar
from pseudolabel.records import Failure
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.classes import write_classes
from pseudolabel.shards.ledger import Ledger, LedgerEntry
from pseudolabel.sources.region_files import Regions, open_regions
from pseudolabel.stages.job import Job, open_job
from pseudolabel.stages.refiners import Refiner, open_refiner
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import Unit

KIND = "masks"
POLL_SECONDS = 1.0


def check_crf(experiment: Experiment, rank: Rank) -> None:
    """Check, before CAMs are written, that they can be refined into `experiment.out`.

    Raises:
        OutputError: if it holds masks of other CRF settings.
        SettingError: if a CRF setting is invalid.
        SourceError: if `refine.regions` is no folder of masks.
    """
    crf = resolve_engine(experiment.crf, rank.device)
    regions = _regions(experiment)
    settings = {"crf": crf_settings(crf), "regions": regions.origin if regions else None}
    Ledger(Folder(experiment.out) / KIND, KIND).check(settings)


def _regions(experiment: Experiment) -> Regions | None:
    return open_regions(experiment.refine.regions) if experiment.refine.regions else None


def write_masks(
    experiment: Experiment,
    rank: Rank,
    follow: bool = False,
    retry_failed: bool = False,
    is_abandoned: Callable[[], bool] = lambda: False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Summary | None:
    """Refine the CAM shards of `experiment.out` that are assigned to this rank.

    Args:
        experiment: the output folder and the CRF's settings.
        rank: this process.
        follow: wait for CAM shards that are still being written; without it they must all be there.
        retry_failed: also retry units with failed samples.
        is_abandoned: called while waiting; True means that no more CAM shards will be written.
        is_stopped: called before every image; True ends the work there.

    Returns:
        The summary of the complete job if this call finished it; None while other ranks are at work.

    Raises:
        StoppedError: if `is_stopped` returned True; finished shards stay.
        NoCamsError: if CAM shards are missing.
        SourceError: if `refine.regions` is no folder of masks.
    """
    cams = CamShards(Ledger(Folder(experiment.out) / "cams", "cams"))
    while follow and not cams.are_started() and not is_abandoned():
        time.sleep(POLL_SECONDS)
    units = cams.units()
    # Without the labels: the inputs of a unit are the digest of its CAM shard.
    crf = resolve_engine(experiment.crf, rank.device)
    settings: dict[str, Any] = {
        "crf": crf_settings(crf),
        "cams": {**cams.settings(), "inputs": {"count": cams.count()}},
    }
    folder = Folder(experiment.out) / KIND
    about: dict[str, Any] = {"crf": {"engine": crf.engine}, "cams": cams.ledger.about()}
    regions = _regions(experiment)
    if regions:
        settings["regions"], about["regions"] = regions.origin, regions.path
    workers = experiment.work.workers or rank.cores()
    cams.finished(units if rank.is_main else rank.assigned(units))  # read together what the job asks for one by one
    with (
        open_refiner(crf, rank.device, workers, regions) as refiner,
        open_job(folder, KIND, settings, units, cams.inputs_of, rank, retry_failed, about=about) as job,
    ):
        if rank.is_main:
            write_classes(folder, cams.settings()["vocabulary"]["names"])
        waiting = list(rank.assigned(units))
        while waiting:
            is_last_poll = not follow or is_abandoned()  # before polling, or shards written in between are missed
            ready = cams.finished(waiting)
            for unit in job.choose(list(ready)):
                _refine_unit(job, unit, cams.ledger.folder, ready[unit], refiner, is_stopped)
            waiting = [unit for unit in waiting if unit not in ready]
            if waiting:
                if is_last_poll:
                    raise NoCamsError(_explain(cams, waiting))
                job.poll(0)
                time.sleep(POLL_SECONDS)
        return job.finish()


class CamShards:
    """The CAM shards of an output folder, written or not yet written, as work units."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._entries: dict[int, LedgerEntry] = {}

    def are_started(self) -> bool:
        return self.ledger.settings() is not None

    def settings(self) -> dict[str, Any]:
        settings = self.ledger.settings()
        if settings is None:
            raise NoCamsError(
                f"no class activation maps in '{self.ledger.folder.path}'; run 'pseudolabel cams' with this `out` first"
            )
        return settings

    def count(self) -> int:
        """Number of samples of the run, failed ones included."""
        return self.settings()["inputs"]["count"]

    def units(self) -> list[Unit[int]]:
        """One unit per CAM shard of the run; the run's settings give them before the shards are written."""
        count, size = self.count(), self.settings()["work"]["unit"]
        return [Unit(start // size, range(start, min(start + size, count))) for start in range(0, count, size)]

    def entry(self, unit: Unit[int]) -> LedgerEntry | None:
        """The ledger entry of a finished CAM shard, read once; None while it is not finished."""
        if unit.number not in self._entries:
            entry = self.ledger.entry(unit.number)
            if entry is None:
                return None
            self._entries[unit.number] = entry
        return self._entries[unit.number]

    def finished(self, units: Sequence[Unit[int]]) -> dict[Unit[int], LedgerEntry]:
        """The ledger entries of those units whose CAM shards are finished."""
        read = self.ledger.read({unit.number for unit in units} - self._entries.keys())
        self._entries |= {number: entry for number, entry in read.items() if not entry.reopened}
        return {unit: self._entries[unit.number] for unit in units if unit.number in self._entries}

    def inputs_of(self, unit: Unit[int], without: frozenset[str] = frozenset()) -> str:
        """The sha256 of the CAM shard, so that a unit whose CAMs changed is refined again."""
        entry = self.entry(unit)
        return entry.sha256 if entry is not None else ""


def _refine_unit(
    job: Job[int],
    unit: Unit[int],
    folder: Folder,
    cams: LedgerEntry,
    refiner: Refiner,
    is_stopped: Callable[[], bool],
) -> None:
    began = time.monotonic()
    with folder.open(cams.shard) as file:
        samples = list(read_tar(file))
    done: dict[str, Members] = {}
    failures = list(cams.failures)
    for key, result in refiner(samples):
        if is_stopped():
            raise StoppedError("refinement was stopped; every finished shard is safe")
        if isinstance(result, SampleError):
            failures.append(Failure(key, f"{folder.path}/{cams.shard}", result.status, str(result)))
        else:
            done[key] = result
        job.poll(len(done) + len(failures))
    failures.sort(key=lambda failure: failure.key)
    job.write(unit, [(key, done[key]) for key, _ in samples if key in done], failures, began)


def _explain(cams: CamShards, waiting: Sequence[Unit[int]]) -> str:
    return (
        f"{len(waiting)} CAM shards are not written yet in '{cams.ledger.folder.path}', the first is number "
        f"{waiting[0].number}; run the same 'pseudolabel cams' again to write the rest, or add `follow`"
    )
