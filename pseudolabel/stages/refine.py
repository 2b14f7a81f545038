"""The refining stage: shards of class activation maps in, shards of pseudo-masks out, with DenseCRF in between."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pseudolabel.config import CrfConfig, Experiment
from pseudolabel.errors import UserError
from pseudolabel.methods.score_maps import at_image_size
from pseudolabel.records import LabelMap
from pseudolabel.refine.densecrf import refine
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.ledger import Failure, Ledger, LedgerEntry
from pseudolabel.shards.sample import ShardSampleError, decode_cams, encode_mask
from pseudolabel.shards.tar import Members, read_tar
from pseudolabel.sources.entry import BadSample
from pseudolabel.sources.images import decode_image
from pseudolabel.stages.job import Job, Summary, open_job
from pseudolabel.stages.units import Rank, Unit
from pseudolabel.stages.workers import open_pool

KIND = "masks"
LOOK_AGAIN_SECONDS = 1.0


class NoCamsError(UserError):
    """There are no class activation maps to refine, or not all of them."""


def write_masks(
    experiment: Experiment,
    rank: Rank,
    follow: bool = False,
    retry_failed: bool = False,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> Summary | None:
    """Refine this rank's share of the CAM shards of `experiment.out`.

    Args:
        experiment: where the CAMs are and how the CRF works.
        rank: who this process is.
        follow: wait for CAM shards that are still being written; without it they must all be there.
        retry_failed: also take up units with failed samples.
        is_abandoned: asked while waiting; where it says yes, nobody will write those shards any more.

    Raises:
        NoCamsError: if CAM shards are missing.
    """
    cams = CamShards(Ledger(Folder(experiment.out) / "cams", "cams"))
    while follow and not cams.are_started() and not is_abandoned():
        rank.check_launcher()
        time.sleep(LOOK_AGAIN_SECONDS)
    units = cams.units()
    # The labels are left out: every unit knows the CAM shard that it was made from.
    settings = {"crf": asdict(experiment.crf), "cams": {**cams.settings(), "inputs": {"count": cams.count()}}}
    workers = experiment.work.workers or rank.cores()
    with (
        open_pool(workers, __name__) as pool,
        open_job(Folder(experiment.out) / KIND, KIND, settings, units, cams.inputs_of, rank, retry_failed) as job,
    ):
        waiting = list(rank.share(units))
        while waiting:
            is_last_look = not follow or is_abandoned()  # asked before looking, or shards written meanwhile are missed
            ready = {unit: entry for unit in waiting if (entry := cams.entry(unit)) is not None}
            for unit in job.choose(list(ready)):
                _refine_unit(job, unit, cams.ledger.folder, ready[unit], experiment.crf, pool)
            waiting = [unit for unit in waiting if unit not in ready]
            if waiting:
                if is_last_look:
                    raise NoCamsError(_explain(cams, waiting))
                job.look(0)
                time.sleep(LOOK_AGAIN_SECONDS)
        return job.finish()


class CamShards:
    """The CAM shards of an output folder, finished or still to come, as units of work."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._entries: dict[int, LedgerEntry] = {}

    def are_started(self) -> bool:
        return self.ledger.settings() is not None

    def settings(self) -> dict[str, Any]:
        settings = self.ledger.settings()
        if settings is None:
            raise NoCamsError(
                f"no class activation maps in '{self.ledger.folder.path}'; run 'pseudolabel cams' with this --out first"
            )
        return settings

    def count(self) -> int:
        """Samples of the run, failed ones included."""
        return self.settings()["inputs"]["count"]

    def units(self) -> list[Unit[int]]:
        """One unit per CAM shard of the run, known from its settings before the shards are written."""
        count, size = self.count(), self.settings()["work"]["unit"]
        return [Unit(start // size, range(start, min(start + size, count))) for start in range(0, count, size)]

    def entry(self, unit: Unit[int]) -> LedgerEntry | None:
        """The ledger entry of a finished CAM shard, read once; None while the shard is still to come."""
        if unit.number not in self._entries:
            entry = self.ledger.entry(unit.number)
            if entry is None:
                return None
            self._entries[unit.number] = entry
        return self._entries[unit.number]

    def inputs_of(self, unit: Unit[int], without: frozenset[str] = frozenset()) -> str:
        """The CAM shard's digest; a unit whose CAMs changed is refined again."""
        entry = self.entry(unit)
        return entry.sha256 if entry is not None else ""


@dataclass(frozen=True)
class Task:
    """One sample of a CAM shard on its way to a worker."""

    key: str
    members: Members
    crf: CrfConfig


def refine_sample(task: Task) -> Members | str:
    """Members of the mask shard's sample, or what is wrong with the CAM shard's."""
    try:
        sample = decode_cams(task.key, task.members)
        image, _ = decode_image(sample.jpeg, task.key, max_pixels=np.iinfo(np.int64).max)
        scores = at_image_size(sample.scores.maps, sample.scores.size)
        labels, _ = refine(np.asarray(image), scores, sample.scores.classes, task.crf)
    except (ShardSampleError, BadSample, ValueError) as error:
        return str(error)
    return encode_mask(sample.jpeg, LabelMap(task.key, labels), sample.fields)


def _refine_unit(
    job: Job[int],
    unit: Unit[int],
    folder: Folder,
    cams: LedgerEntry,
    crf: CrfConfig,
    pool: Executor,
) -> None:
    began = time.monotonic()
    with folder.open(cams.shard) as file:
        tasks = [Task(key, members, crf) for key, members in read_tar(file)]
    samples: list[tuple[str, Members]] = []
    failures = list(cams.failures)
    for task, result in zip(tasks, pool.map(refine_sample, tasks), strict=True):
        if isinstance(result, str):
            failures.append(Failure(task.key, f"{folder.path}/{cams.shard}", "crf", result))
        else:
            samples.append((task.key, result))
        job.look(len(samples) + len(failures))
    job.write(unit, samples, failures, began)


def _explain(cams: CamShards, waiting: Sequence[Unit[int]]) -> str:
    return (
        f"{len(waiting)} CAM shards are not written yet in '{cams.ledger.folder.path}', the first is number "
        f"{waiting[0].number}; run the same 'pseudolabel cams' again to write the rest, or add --follow"
    )
