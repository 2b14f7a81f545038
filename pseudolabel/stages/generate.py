"""CAMs and pseudo-masks in one run: what is labelled is refined while the device labels on."""

import threading
from concurrent.futures import ThreadPoolExecutor

from pseudolabel.config import Experiment
from pseudolabel.runtime.rank import Rank
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.method import produced_kind
from pseudolabel.stages.refine import check_crf, write_masks
from pseudolabel.stages.summary import Summary


def generate(experiment: Experiment, rank: Rank, retry_failed: bool = False) -> tuple[Summary | None, ...]:
    """Write this rank's CAM shards and, behind them, its mask shards; gives the summaries of both jobs.

    Methods that give masks or segments by themselves are done with one job.

    An error of labelling is raised once the image at hand is refined, and one of refining once labelling is over;
    finished shards stay. In a retry the masks come after the CAMs, because until then the CAM shards of the last run
    would be taken for finished ones.
    """
    if produced_kind(experiment) != "cams":
        return (write_labels(experiment, rank, retry_failed),)
    check_crf(experiment, rank)
    if retry_failed:
        return write_labels(experiment, rank, retry_failed), write_masks(experiment, rank, retry_failed=True)
    cams_begun, cams_over, failed = threading.Event(), threading.Event(), threading.Event()

    def refine_behind() -> Summary | None:
        cams_begun.wait()  # or it would go by the settings of an earlier run in which no sample was done
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
