"""The stages as functions of a config, for Python; under `accelerate launch` every process calls them.

They start worker processes, so scripts must call them below `if __name__ == "__main__":`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel.errors import SettingError
from pseudolabel.evaluation.probe_report import ProbeReport
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.experiment_file import Config, open_experiment
from pseudolabel.io.folder import Folder
from pseudolabel.records import Failure, Kind, Order
from pseudolabel.runtime.rank import current_rank
from pseudolabel.shards.failures import find_failures
from pseudolabel.shards.verify import find_folders
from pseudolabel.shards.verify import verify as find_problems
from pseudolabel.sources.cam_files import CamFormat
from pseudolabel.stages.caption import write_captions
from pseudolabel.stages.evaluate import evaluate as write_scores
from pseudolabel.stages.filter import write_classes
from pseudolabel.stages.generate import generate as write_cams_and_masks
from pseudolabel.stages.import_files import import_files
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.method import produced_kind
from pseudolabel.stages.probe import probe as write_probe
from pseudolabel.stages.refine import write_masks
from pseudolabel.stages.segment import Outcome
from pseudolabel.stages.segment import segment_images as write_segmentations
from pseudolabel.stages.sheet import draw_sheet
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


def refine_cams(
    config: Config, overrides: Overrides | None = None, *, follow: bool = False, retry_failed: bool = False
) -> Summary | None:
    """Write pseudo-masks of the CAM shards in `out`/cams with DenseCRF, as shards in `out`/masks.

    Args:
        config: as in `cams`.
        overrides: as in `cams`.
        follow: refine the shards of a run that is still writing, until its last one.
        retry_failed: also retry shards with failed samples.

    Returns:
        The summary of the job; None in the processes that did not finish it.

    Raises:
        UserError: if there are no CAM shards, or a setting cannot be used; the message gives the fix.
    """
    return write_masks(open_experiment(config, overrides), current_rank(), follow, retry_failed)


def generate(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write pseudo-masks in one run: shards in `out`/masks, and in `out`/cams if the method gives CAMs first.

    Arguments, result and errors are those of `cams`.
    """
    return write_cams_and_masks(open_experiment(config, overrides), current_rank(), retry_failed)[-1]


def caption(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Write a caption for every image and class that has none yet, into the folder `captions.source`.

    Arguments and errors are those of `cams`.

    Returns:
        The summary of the job; None in the processes that did not finish it, or if no caption is missing.
    """
    return write_captions(open_experiment(config, overrides), current_rank(), retry_failed)


def filter_classes(config: Config, overrides: Overrides | None = None, *, retry_failed: bool = False) -> Summary | None:
    """Predict the classes of images without labels, in `out`/filter, which other stages take as `source.labels`.

    Arguments, result and errors are those of `cams`.
    """
    return write_classes(open_experiment(config, overrides), current_rank(), retry_failed)


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


def segment_images(
    config: Config,
    overrides: Overrides | None = None,
    *,
    images: Sequence[str | os.PathLike[str]],
    classes: str | None = None,
    sharpen: bool = False,
) -> Outcome:
    """Segment images and folders of images into `out`/NAME.png, NAME.overlay.png and NAME.json.

    `Segmenter` gives the same in memory.

    Args:
        config: as in `cams`.
        overrides: as in `cams`.
        images: image files and folders.
        classes: names with commas; a vocabulary's name or file; `auto`, the nouns of a caption; or None, with which
            DiffSeg gives regions without names and the others take `auto`.
        sharpen: refine the maps of DiffSegmenter and ELBO with DenseCRF.

    Returns:
        How many images were done, and each failure by its image.

    Raises:
        UserError: if a path does not exist, there is no image, or nothing can be written.
    """
    paths = [os.fspath(path) for path in images]
    return write_segmentations(open_experiment(config, overrides), paths, classes, sharpen)


def sheet(
    config: Config,
    overrides: Overrides | None = None,
    *,
    out_file: str | os.PathLike[str] = "",
    rows: int = 12,
    title: str = "",
    order: Order = "first",
    only: Sequence[str] = (),
) -> str:
    """Draw a contact sheet: image, ground truth, and CAM, pseudo-mask or segments of each sample.

    Args:
        config: as in `cams`.
        overrides: as in `cams`.
        out_file: the PNG to write, by default `out`/sheet.png.
        rows: number of samples.
        title: printed on top.
        order: which samples: the first, the worst or best by the confidence of their masks, or random ones.
        only: keys of the samples to draw, instead of `rows` and `order`.

    Returns:
        The path of the PNG.

    Raises:
        UserError: if there are no shards, or the file is not this package's; the message gives the fix.
    """
    experiment = open_experiment(config, overrides)
    target = os.fspath(out_file) or f"{experiment.out.rstrip('/')}/sheet.png"
    draw_sheet(experiment, target, rows, title, order, only)
    return target


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Check every hash, count and member of the shards of a run.

    Args:
        folder: the output folder of a run, or a folder of shards, such as `runs/voc/masks`.

    Returns:
        A line for each problem; none if the shards are complete and valid.

    Raises:
        UserError: if there are no shards.
    """
    return [
        f"{found.path}: {problem}"
        for found in find_folders(Folder(os.fspath(folder)))
        for problem in find_problems(found)
    ]


def failures(folder: str | os.PathLike[str]) -> list[tuple[str, Failure]]:
    """Every sample of a run that failed or was left out.

    Args:
        folder: the output folder of a run, or a folder in it, such as `runs/voc/cams`; or the folder of captions.

    Returns:
        The kind of output, such as `cams`, and the failure, by kind and key.

    Raises:
        UserError: if no job has recorded anything there.
    """
    return find_failures(Folder(os.fspath(folder)))
