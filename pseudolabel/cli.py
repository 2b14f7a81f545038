"""The commands. Each is a few lines: take the experiment, call a stage, report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pseudolabel.cli_exchange import correct, export, export_cams, import_cams, import_masks, push
from pseudolabel.cli_inspect import failures, verify
from pseudolabel.command_line import report, run_command, show
from pseudolabel.config import Experiment
from pseudolabel.options import Command
from pseudolabel.papers.names import TableName
from pseudolabel.records import Kind, Order
from pseudolabel.shapes.difficulty import Name as Difficulty

if TYPE_CHECKING:
    from pseudolabel.runtime.rank import Rank

NO_OPTIONS: list[str] = []


def shapes(*, out: Path, train: int = 100, val: int = 200, seed: int = 1, difficulty: Difficulty = "easy") -> int:
    """Write Shapes, a procedural data set in VOC layout, to try everything on.

    Args:
        out: folder to write; empty, absent, or with the same data set, which is then completed.
        train: number of training images.
        val: number of validation images.
        seed: another seed draws other images.
        difficulty: `standard` has duller colours, unlabelled blobs and objects that touch or cover each other.
    """
    from pseudolabel.runtime.progress import show_progress
    from pseudolabel.shapes.dataset import write_shapes

    with show_progress("shapes", train + val) as progress:
        write_shapes(out, train, val, seed, difficulty, lambda done, total: progress.update(done, 0))
    print(f"{train} training and {val} validation images -> {out}")
    return 0


def caption(experiment: Experiment, rank: "Rank", retry_failed: bool = False) -> int:
    """Write a caption for every image and class that has none yet, into --captions.source.

    `accelerate launch` uses several devices, and a run that was stopped resumes with the same command. Images and
    classes that are added later get captions; existing captions are kept.

    Args:
        retry_failed: also retry the images of finished files that could not be read.
    """
    from pseudolabel.stages.caption import write_captions

    return report(write_captions(experiment, rank, retry_failed))


def filter_classes(experiment: Experiment, rank: "Rank", retry_failed: bool = False) -> int:
    """Predict the classes of images without labels, in OUT/filter, which other commands take as --source.labels.

    If the source has labels, predictions are scored against them: precision, recall and F1 are printed and written to
    OUT/metrics.json. `accelerate launch` uses several devices; the same command resumes a run that was stopped.

    Args:
        retry_failed: also retry images of finished files that could not be read.
    """
    from pseudolabel.evaluation.label_scores import print_label_scores
    from pseudolabel.stages.filter import filter_vocabulary, score_classes, true_classes, write_classes

    truth = true_classes(experiment)  # before the work: it fails if they are missing
    summary = write_classes(experiment, rank, retry_failed)
    if summary is not None and truth:
        names = filter_vocabulary(experiment).names[1:]
        title = f"Filtered classes on {experiment.source.split}, {len(truth):,} labelled images"
        print_label_scores(score_classes(experiment, truth), names, title, Console())
    return report(summary)


def cams(experiment: Experiment, retry_failed: bool = False) -> int:
    """Write class activation maps of images with image-level labels as WebDataset shards in OUT/cams.

    `accelerate launch -m pseudolabel cams ...` uses several devices. The same command resumes a run that was stopped,
    with any number of processes.

    Args:
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.stages.functions import cams as run

    return report(run(experiment, retry_failed=retry_failed))


def refine(experiment: Experiment, rank: "Rank", follow: bool = False, retry_failed: bool = False) -> int:
    """Turn OUT/cams into pseudo-masks with DenseCRF, on a CUDA device or on all cores, as shards in OUT/masks.

    Args:
        follow: refine the shards of a `cams` run that is still writing, until its last one.
        retry_failed: also retry shards with failed samples.
    """
    from pseudolabel.stages.refine import write_masks

    return report(write_masks(experiment, rank, follow, retry_failed))


def generate(experiment: Experiment, rank: "Rank", retry_failed: bool = False) -> int:
    """Write pseudo-masks in one run.

    CAMs of DiffSegmenter and ELBO are refined while the device computes more (`cams` and `refine --follow`); the other
    methods give masks themselves.

    Args:
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.stages.generate import generate as run

    *before, last = run(experiment, rank, retry_failed)
    for summary in before:  # the last one repeats its failures
        if summary is not None:
            show(summary.lines(), summary.notes(is_last=False), 0)
    # A status other than 0 makes the launcher end all other ranks, so only the rank that ends last gives it.
    return report(last)


def evaluate(experiment: Experiment, rank: "Rank", kind: Kind, predictions: str = "") -> int:
    """Score OUT/cams, OUT/masks or OUT/segments against ground truth; write OUT/metrics.json and plots.

    Args:
        kind: `cams` sweeps every background threshold in one pass, `masks` scores labels as they are, `segments` first
            matches each one to a true label of its image.
        predictions: folder of shards, or of PNG files for masks and segments, instead of those in OUT.
    """
    from pseudolabel.errors import FAILED_SAMPLES_EXIT
    from pseudolabel.evaluation.report import print_report
    from pseudolabel.stages.evaluate import evaluate as run

    scores = run(experiment, kind, rank, predictions)
    print_report(scores, Console())
    status = 0 if scores.scope is None or scores.scope.is_whole else FAILED_SAMPLES_EXIT
    show([], scores.scope.lines() if scores.scope is not None else [], status)
    return status


def probe(experiment: Experiment, rank: "Rank", images: int = 40) -> int:
    """Measure a checkpoint's attention on images with masks: a table, OUT/metrics.json and OUT/probe.png.

    For each layer, head and timestep: how well cross-attention localises the classes, how much self-attention stays in
    the object, and what passes of it make of the maps. It shows which layers, heads and weights suit a new checkpoint.

    For example: pseudolabel probe --model.name MODEL --source.path VOC2012 --diffsegmenter.timesteps [100]

    Args:
        images: number of images to measure.
    """
    from pseudolabel.evaluation.probe_report import print_probe
    from pseudolabel.stages.probe import probe as run

    print_probe(run(experiment, rank, images), Console())
    return 0


def reproduce(experiment: Experiment, rank: "Rank", table: TableName, *, data: str, limit: int = 0) -> int:
    """Run a paper's table row by row; print measured and published scores; write OUT/TABLE/metrics.json.

    Args:
        table: the paper and its table.
        data: folder of the data sets, as in docs/datasets.md; with --config shapes the folder of Shapes.
        limit: number of images to take from each data set; 0 takes all.
    """
    from pseudolabel.papers.reproduce import print_rows, run_table

    reproduction = run_table(experiment, table, data, limit, rank)
    if rank.is_main:
        print_rows(reproduction, Console())
    return reproduction.exit_status


def segment(experiment: Experiment, images: list[str], classes: str | None = None, sharpen: bool = False) -> int:
    """Segment images and folders of images: OUT/NAME.png (mask), NAME.overlay.png and NAME.json (areas).

    For example: pseudolabel segment photo.jpg --classes "dog, red car" --out runs/photo

    NAME is the image's path below the given folder, without suffix. Images done before with the same settings are left
    out, so that the same command resumes a run that was stopped. Files that this package did not write are kept.

    Args:
        images: image files, or folders that hold them.
        classes: names of classes with commas; or the name or file of a vocabulary, such as voc, from whose classes CLIP
            and captions pick; or auto, the nouns of a caption. Not given, DiffSeg gives regions without names, and the
            others take auto.
        sharpen: refine the maps of DiffSegmenter and ELBO with DenseCRF.
    """
    from pseudolabel.stages.segment import segment_images

    return report(segment_images(experiment, images, classes, sharpen))


def sheet(
    experiment: Experiment,
    out_file: str = "",
    rows: int = 12,
    title: str = "",
    order: Order = "first",
    only: list[str] = NO_OPTIONS,
) -> int:
    """Draw a contact sheet: image, ground truth, and CAM, pseudo-mask or segments of each sample.

    Args:
        out_file: the PNG to write, by default OUT/sheet.png.
        rows: number of samples.
        title: printed on top.
        order: which samples: the first, the worst or best by the confidence of their masks, or random ones.
        only: keys of the samples to draw, instead of --rows and --order.
    """
    from pseudolabel.stages.sheet import draw_sheet

    target = out_file or f"{experiment.out.rstrip('/')}/sheet.png"
    draw_sheet(experiment, target, rows, title, order, only)
    print(f"contact sheet -> {target}")
    return 0


def write_report(experiment: Experiment, run: str, out_file: str = "", images: int = 300) -> int:
    """Write one HTML page to look at a run: settings, counts, failures, scores, confidence and a gallery of masks.

    For example: pseudolabel report runs/mine

    The page needs no network and no other file. A click on an image shows its score maps, its mask and, where --source
    has any, the ground truth; a slider moves the background threshold.

    Args:
        run: the output folder of generate, cams or refine, such as runs/mine.
        out_file: the page to write, by default RUN/report.html.
        images: number of samples in the gallery, by confidence: a third worst, a third best, the others random.
    """
    from pseudolabel.stages.report_page import report as draw

    print(f"report -> {draw(run, out_file, images, experiment)}")
    return 0


def train(
    config: str, work_dir: Path | None = None, resume: bool = False, init: str = "", cfg_options: list[str] = NO_OPTIONS
) -> int:
    """Train a segmenter on pseudo-mask shards from an MMSegmentation config; `accelerate launch` uses several devices.

    Args:
        config: path of a config, or the name of one that ships, such as deeplabv2_r101_voc12_imagenet.
        work_dir: folder of checkpoints and logs, by default work_dirs/CONFIG.
        resume: continue from the newest checkpoint in the work folder.
        init: initial weights instead of the config's: a safetensors file or a checkpoint without pickled code.
        cfg_options: changes of the config, such as train_dataloader.batch_size=4 optim_wrapper.type=AmpOptimWrapper.
    """
    from pseudolabel_train.commands import train as run

    return run(config, work_dir, resume, init, cfg_options)


def score_segmenter(
    config: str,
    checkpoint: str,
    work_dir: Path | None = None,
    split: str = "",
    out: str = "",
    cfg_options: list[str] = NO_OPTIONS,
) -> int:
    """Score a trained segmenter by its config's test split: mIoU by class, with scales, CRF and initialisation.

    Args:
        config: path of a config, or the name of one that ships.
        checkpoint: weights of the segmenter.
        work_dir: folder of logs and metrics, by default work_dirs/CONFIG.
        split: another list of the data set; one without ground truth, such as VOC's test, is predicted but not scored.
        out: folder to write the predictions to, as palette PNGs, each under its image's path below the data set's.
        cfg_options: changes of the config, such as test_evaluator.crf=None model.test_cfg.scales=[1.0].
    """
    from pseudolabel_train.commands import test as run

    return run(config, checkpoint, work_dir, split, out, cfg_options)


def pack_voc_test(predictions: Path, voc: Path, out: Path | None = None, split: str = "test") -> int:
    """Pack predictions for PASCAL VOC's evaluation server, after checking them as it does.

    Args:
        predictions: folder of palette PNGs, one per image, such as the one `pseudolabel test --out` writes.
        voc: the data set's folder with JPEGImages and ImageSets, such as VOCdevkit/VOC2012.
        out: the archive to write, by default PREDICTIONS.tar.gz.
        split: the list in ImageSets/Segmentation that the archive must cover.
    """
    from pseudolabel_train.submission import pack

    archive = out or predictions.with_name(f"{predictions.name}.tar.gz")
    print(f"{pack(predictions, voc, split, archive)} predictions -> {archive}")
    return 0


def doctor(model: str = "") -> int:
    """Print versions and devices, what is missing, and the command that fixes it.

    Args:
        model: also load this checkpoint, which other commands know as the setting model.name, and run it once: whether
            it can be used, where its files are, how much memory a batch takes, and how long a run would.
    """
    from pseudolabel.stages.doctor import diagnose

    return report(diagnose(model))


_RESUME = "what is finished is kept; the same command resumes the work"
_TRAINING = "checkpoints are kept; the same command with --resume continues from the newest"
_DATA = ("vocabulary", "source")
_LABEL = ("out", *_DATA, "model", "method", "captions.source", "work")
_IMPORT = ("out", *_DATA, "work.unit", "work.loaders")
_CAPTIONER = tuple(f"captions.{name}" for name in ("model", "max_new_tokens", "max_length", "beams", "batch"))
COMMANDS = {
    "shapes": Command(shapes, is_single_process=True),
    "caption": Command(caption, (*_DATA, "captions", "work"), interrupted=_RESUME),
    "filter": Command(filter_classes, ("out", *_DATA, "filter", *_CAPTIONER, "work"), interrupted=_RESUME),
    "cams": Command(cams, _LABEL, interrupted=_RESUME),
    "refine": Command(refine, ("out", "work.workers", "crf", "refine"), interrupted=_RESUME),
    "generate": Command(generate, (*_LABEL, "crf", "refine"), interrupted=_RESUME),
    "import-cams": Command(import_cams, _IMPORT, interrupted=_RESUME),
    "import-masks": Command(import_masks, _IMPORT, interrupted=_RESUME),
    "export-cams": Command(export_cams, is_single_process=True, interrupted=_RESUME),
    "correct": Command(correct, is_single_process=True, interrupted=_RESUME),
    "evaluate": Command(evaluate, ("out", *_DATA, "work.workers", "evaluate"), is_single_process=True),
    "probe": Command(probe, ("out", *_DATA, "model", "diffsegmenter", "work"), is_single_process=True),
    "reproduce": Command(reproduce, (*_LABEL, "captions", "filter", "crf", "evaluate"), interrupted=_RESUME),
    "segment": Command(
        segment,
        ("out", "source.max_pixels", "model", "method", *_CAPTIONER, "filter", "work", "crf", "evaluate.threshold"),
        is_single_process=True,
        interrupted=_RESUME,
    ),
    "sheet": Command(sheet, ("out", *_DATA), is_single_process=True),
    "export": Command(
        export, is_single_process=True, interrupted="what is written is kept; the same command completes it"
    ),
    "push": Command(push, is_single_process=True, interrupted="the same command completes the upload"),
    "report": Command(write_report, (*_DATA, "evaluate.threshold"), is_single_process=True),
    "verify": Command(verify, is_single_process=True),
    "failures": Command(failures, is_single_process=True),
    "train": Command(train, interrupted=_TRAINING),
    "test": Command(score_segmenter),
    "pack-voc-test": Command(pack_voc_test, is_single_process=True),
    "doctor": Command(doctor, is_single_process=True),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command of a command line, by default this process's; give its exit status."""
    return run_command(COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
