"""The stages as functions of a config, for Python; under `accelerate launch` every process calls them.

They start worker processes, so scripts must call them below `if __name__ == "__main__":`.
"""

import os
from collections.abc import Mapping
from typing import Any

from pseudolabel.errors import SettingError
from pseudolabel.evaluation.probe_report import ProbeReport
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.experiment_file import Config, open_experiment
from pseudolabel.records import Kind
from pseudolabel.runtime.rank import current_rank
from pseudolabel.sources.cam_files import CamFormat
from pseudolabel.stages.evaluate import evaluate as write_scores
from pseudolabel.stages.generate import generate as write_cams_and_masks
from pseudolabel.stages.import_files import import_files
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.method import produced_kind
from pseudolabel.stages.probe import probe as write_probe
from pseudolabel.stages.summary import Summary

Overrides = Mapping[str, Any]


def cams(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write class activation maps of images with image-level labels as WebDataset shards in `out`/cams.

    A stopped run resumes when it is called again with the same settings.

    Args:
        config: an experiment file, the name of a shipped one, such as `voc12_train_aug`, or an `Experiment`.
        overrides: settings by dotted name, such as `{"source.path": "VOC2012", "out": "runs/voc"}`.
        retry_failed: also retry the failed samples of finished shards.

    Returns:
        The summary of the job; None in the processes that did not finish it.

    Raises:
        UserError: if a setting, the model or the data cannot be used; the message gives the fix.
    """
    experiment = open_experiment(config, overrides)
    if produced_kind(experiment) != "cams":
        raise SettingError(f"`method` {experiment.method} gives no CAMs; use generate instead")
    return write_labels(experiment, current_rank(), retry_failed)


def generate(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write pseudo-masks in one run: shards in `out`/masks, and in `out`/cams if the method gives CAMs first.

    Arguments, result and errors are those of `cams`.
    """
    return write_cams_and_masks(open_experiment(config, overrides), current_rank(), retry_failed)[-1]


def import_cams(
    config: Config,
    overrides: Overrides | None = None,
    *,
    folder: str | os.PathLike[str],
    format: CamFormat,
    retry_failed: bool = False,
) -> Summary | None:
    """Write score maps of another program as CAM shards in `out`/cams, which all other stages take as ours.

    Args:
        config: as in `cams`; its source lists the images and their labels.
        overrides: as in `cams`.
        folder: of the files, named as the images or their keys; see docs/import.md.
        format: `npy` dictionaries or arrays, `png`, or `npz` of our own shards.
        retry_failed: also retry the failed samples of finished shards.

    Returns:
        The summary of the job; None in the processes that did not finish it.

    Raises:
        UserError: if the data or the output folder cannot be used; the message gives the fix.
    """
    return import_files(open_experiment(config, overrides), current_rank(), os.fspath(folder), format, retry_failed)


def import_masks(
    config: Config, overrides: Overrides | None = None, *, folder: str | os.PathLike[str], retry_failed: bool = False
) -> Summary | None:
    """Write PNG masks of another program, palette or grey, as mask shards in `out`/masks.

    Arguments, result and errors are those of `import_cams`.
    """
    return import_files(open_experiment(config, overrides), current_rank(), os.fspath(folder), "masks", retry_failed)


def probe(config: Config, overrides: Overrides | None = None, *, images: int = 40) -> ProbeReport | None:
    """Measure a checkpoint's attention layers on images with masks; writes `out`/metrics.json and `out`/probe.png.

    Args:
        config: as in `cams`.
        overrides: as in `cams`; `diffsegmenter.timesteps` are the timesteps measured.
        images: number of images.

    Returns:
        The measures; None in all processes but the first.

    Raises:
        UserError: if there is no ground truth, or a setting does not fit the checkpoint.
    """
    experiment, rank = open_experiment(config, overrides), current_rank()
    return write_probe(experiment, rank, images) if rank.is_main else None


def evaluate(
    config: Config, overrides: Overrides | None = None, *, kind: Kind, predictions: str = ""
) -> Report | SegmentReport | None:
    """Score `out`/cams, `out`/masks or `out`/segments against ground truth; writes `out`/metrics.json and plots.

    Args:
        config: as in `cams`.
        overrides: as in `cams`.
        kind: `cams` are scored at every background threshold, `masks` as they are, `segments` after matching to true
            labels.
        predictions: folder of shards, or of PNG files for masks and segments, instead of `out`/`kind`.

    Returns:
        The scores; None in all processes but the first.

    Raises:
        UserError: if there is no ground truth, or nothing to score.
    """
    experiment, rank = open_experiment(config, overrides), current_rank()
    rank.barrier()  # until all ranks have written their shards
    return write_scores(experiment, kind, rank, predictions) if rank.is_main else None
