"""CAMs and pseudo-masks in one run: finished CAM shards are refined while the next ones are computed."""

import threading
from concurrent.futures import ThreadPoolExecutor

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.runtime.rank import Rank
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.method import produced_kind
from pseudolabel.stages.refine import check_crf, write_masks
from pseudolabel.stages.summary import Summary


def generate(experiment: Experiment, rank: Rank, retry_failed: bool = False) -> tuple[Summary | None, ...]:
    """Write the CAM shards and the mask shards assigned to this rank; gives the summaries of both jobs.

    Methods that give masks or segments themselves need one job.

    An error of the CAMs is raised after the current image is refined, an error of the masks after the CAMs are
    finished; finished shards stay. A retry writes all CAMs before the masks, since the CAM shards of the last run would
    count as finished until then.
    """
    if produced_kind(experiment) != "cams":
        if experiment.refine.regions:
            raise SettingError(
                f"`refine.regions` {experiment.refine.regions}: method {experiment.method} gives no class activation "
                "maps, which are what is refined; leave it out"
            )
        return (write_labels(experiment, rank, retry_failed),)
    check_crf(experiment, rank)
    if retry_failed:
        return write_labels(experiment, rank, retry_failed), write_masks(experiment, rank, retry_failed=True)
    cams_begun, cams_over, failed = threading.Event(), threading.Event(), threading.Event()

    def refine_behind() -> Summary | None:
        cams_begun.wait()  # or it would read the settings of an earlier run in which no sample was done
        if failed.is_set():
            return None
        return write_masks(experiment, rank, follow=True, is_abandoned=cams_over.is_set, is_stopped=failed.is_set)

    with ThreadPoolExecutor(1, thread_name_prefix="refine") as background:
        masks = background.submit(refine_behind)
        try:
            cams = write_labels(experiment, rank, on_open=cams_begun.set)
        except BaseException:  # an interrupt, too
            failed.set()
            raise
        finally:
            cams_over.set()
            cams_begun.set()
        return cams, masks.result()
