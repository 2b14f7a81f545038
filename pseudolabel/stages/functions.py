"""The stages as functions of a config, for Python; under `accelerate launch` every process calls them alike.

Some of the work runs in worker processes: a script calls these functions below `if __name__ == "__main__":`.
"""

from collections.abc import Mapping
from typing import Any

from pseudolabel.errors import SettingError
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.experiment_file import Config, open_experiment
from pseudolabel.methods.registry import produced_kind
from pseudolabel.records import Kind
from pseudolabel.runtime.rank import current_rank
from pseudolabel.stages.evaluate import evaluate as write_scores
from pseudolabel.stages.generate import generate as write_cams_and_masks
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.summary import Summary

Overrides = Mapping[str, Any]


def cams(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write class activation maps of images with image-level labels as WebDataset shards in `out`/cams.

    A run that was stopped resumes when it is called again with the same settings.

    Args:
        config: an experiment file, the name of one that ships, such as `voc12_train_aug`, or an `Experiment`.
        overrides: settings by dotted name, such as `{"source.path": "VOC2012", "out": "runs/voc"}`.
        retry_failed: also retry the failed samples of finished shards.

    Returns:
        The summary of the job; None in the processes that did not finish it.

    Raises:
        UserError: if a setting, the model or the data cannot be used; the message names the fix.
    """
    experiment = open_experiment(config, overrides)
    if produced_kind(experiment) != "cams":
        raise SettingError(f"`method` {experiment.method} gives no CAMs; call `generate` with it")
    return write_labels(experiment, current_rank(), retry_failed)


def generate(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write pseudo-masks in one run: shards in `out`/masks, and in `out`/cams where the method gives CAMs first.

    A run that was stopped resumes when it is called again with the same settings.

    Args:
        config: an experiment file, the name of one that ships, such as `voc12_train_aug`, or an `Experiment`.
        overrides: settings by dotted name, such as `{"source.path": "VOC2012", "out": "runs/voc"}`.
        retry_failed: also retry the failed samples of finished shards.

    Returns:
        The summary of the masks' job; None in the processes that did not finish it.

    Raises:
        UserError: if a setting, the model or the data cannot be used; the message names the fix.
    """
    return write_cams_and_masks(open_experiment(config, overrides), current_rank(), retry_failed)[-1]


def evaluate(
    config: Config, overrides: Overrides | None = None, *, kind: Kind, predictions: str = ""
) -> Report | SegmentReport | None:
    """Score `out`/cams, `out`/masks or `out`/segments against ground truth; writes `out`/metrics.json and plots.

    Args:
        config: an experiment file, the name of one that ships, or an `Experiment`.
        overrides: settings by dotted name.
        kind: `cams` sweeps every background threshold in one pass, `masks` scores labels as they are, `segments` first
            matches each one to a true label of its image.
        predictions: folder of shards, or for masks and segments of PNG files, instead of `out`'s own.

    Returns:
        The scores; under `accelerate launch` the first process's alone, None in the others.

    Raises:
        UserError: if there is no ground truth, or nothing to score.
    """
    experiment, rank = open_experiment(config, overrides), current_rank()
    rank.barrier()  # all have written what they were assigned
    return write_scores(experiment, kind, rank, predictions) if rank.is_main else None
