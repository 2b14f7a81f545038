"""The commands. Each is a few lines: take the experiment, call a stage, report."""

import argparse
import inspect
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import fields
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Literal, NoReturn

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError, UserError
from pseudolabel.experiment_file import check_shipped, resolve_shipped
from pseudolabel.io.terminal import escaped
from pseudolabel.methods.plugins import load_plugins
from pseudolabel.methods.registry import METHODS
from pseudolabel.papers.names import TableName
from pseudolabel.runtime.alone import stands_aside
from pseudolabel.runtime.cores import sleep_while_waiting
from pseudolabel.runtime.interrupt import ended_by_interrupt
from pseudolabel.runtime.watchdog import end_with_launcher

NO_OPTIONS: list[str] = []
CONFIG_HELP = "experiment file (YAML), or the name of one that ships, such as shapes; later options override it"
TRAINING_PACKAGES = ("mmcv", "mmengine", "mmseg")  # they come with the extra `train`


def shapes(*, out: Path, train: int = 100, val: int = 200, seed: int = 1) -> int:
    """Write Shapes, a procedural data set in VOC layout, to try everything on.

    Args:
        out: folder to write; it must be empty, absent, or hold the same data set, which is completed.
        train: number of training images.
        val: number of validation images.
        seed: another seed draws other images.
    """
    from pseudolabel.runtime.progress import show_progress
    from pseudolabel.shapes.dataset import write_shapes

    with show_progress("shapes", train + val) as progress:
        write_shapes(out, train, val, seed, lambda done, total: progress.update(done, 0))
    print(f"{train} training and {val} validation images -> {out}")
    return 0


def caption(experiment: Experiment) -> int:
    """Write a caption for every image and class that has none yet, into --captions.source."""
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.caption import write_captions

    captioned = write_captions(experiment, current_rank())
    return captioned.report() if captioned is not None else 0


def filter_classes(experiment: Experiment, retry_failed: bool = False) -> int:
    """Guess the classes of images that nobody has labelled, in OUT/filter; the other commands' --source.labels.

    Where the source has labels, the guesses are scored against them: precision, recall and F1, on the terminal and in
    OUT/metrics.json. `accelerate launch` uses several devices, and a run that was stopped goes on where it was.

    Args:
        retry_failed: also retry the images of finished files that could not be read.
    """
    from pseudolabel.evaluation.label_scores import print_label_scores
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.filter import filter_vocabulary, score_classes, true_classes, write_classes
    from pseudolabel.stages.summary import report

    truth = true_classes(experiment)  # before the work, for it may be missing
    summary = write_classes(experiment, current_rank(), retry_failed)
    if summary is not None and truth:
        names = filter_vocabulary(experiment).names[1:]
        title = f"Filtered classes on {experiment.source.split}, {len(truth):,} labelled images"
        print_label_scores(score_classes(experiment, truth), names, title, Console())
    return report(summary)


def cams(experiment: Experiment, retry_failed: bool = False) -> int:
    """Write class activation maps of images with image-level labels as WebDataset shards in OUT/cams.

    Run it with `accelerate launch -m pseudolabel cams ...` to use several devices. A run that was stopped goes on where
    it was when the same command is given again, with any number of processes.

    Args:
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.methods.registry import produced_kind
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.label import write_labels
    from pseudolabel.stages.summary import report

    if produced_kind(experiment) != "cams":
        raise SettingError(f"--method {experiment.method} gives no CAMs; say 'pseudolabel generate' with it")
    return report(write_labels(experiment, current_rank(), retry_failed))


def refine(experiment: Experiment, follow: bool = False, retry_failed: bool = False) -> int:
    """Turn OUT/cams into pseudo-masks with DenseCRF, on a CUDA device or on all cores, as shards in OUT/masks.

    Args:
        follow: work behind a `cams` run that is still writing, until its last shard.
        retry_failed: also retry shards with failed samples.
    """
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.refine import write_masks
    from pseudolabel.stages.summary import report

    return report(write_masks(experiment, current_rank(), follow, retry_failed))


def generate(experiment: Experiment, retry_failed: bool = False) -> int:
    """Write pseudo-masks in one run.

    With DiffSegmenter and ELBO, CAMs are refined while the device goes on labelling (`cams` and `refine --follow`);
    the other methods give masks themselves.

    Args:
        retry_failed: also retry the failed samples of finished shards.
    """
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.generate import generate as run
    from pseudolabel.stages.summary import report

    # The masks' status counts the CAMs' failures, too. While other ranks are at work there must be none: the launcher
    # would end them.
    return [report(summary) for summary in run(experiment, current_rank(), retry_failed)][-1]


def evaluate(experiment: Experiment, kind: Literal["cams", "masks", "segments"], predictions: str = "") -> int:
    """Score OUT/cams, OUT/masks or OUT/segments against ground truth; writes OUT/metrics.json and plots.

    Args:
        kind: `cams` sweeps every background threshold in one pass, `masks` scores labels as they are, `segments` first
            matches each one to a true label of its image.
        predictions: folder of shards, or for masks and segments of PNG files, instead of OUT's own.
    """
    from pseudolabel.errors import FAILED_SAMPLES_EXIT
    from pseudolabel.evaluation.report import print_report
    from pseudolabel.runtime.rank import current_rank
    from pseudolabel.stages.evaluate import evaluate as run

    report = run(experiment, kind, current_rank(), predictions)
    print_report(report, Console())
    return 0 if report.scope is None or report.scope.is_whole else FAILED_SAMPLES_EXIT


def reproduce(experiment: Experiment, table: TableName, *, data: str, limit: int = 0) -> int:
    """Run a paper's table row by row and print our figures beside the published ones; writes OUT/TABLE/metrics.json.

    Args:
        table: the paper and its table.
        data: folder that holds the data sets, as docs/datasets.md lays them out; with --config shapes that of Shapes.
        limit: take only the first so many images; 0 takes all.
    """
    from pseudolabel.papers.reproduce import reproduce as run
    from pseudolabel.runtime.rank import current_rank

    return run(experiment, table, data, limit, current_rank())


def segment(experiment: Experiment, images: list[str], classes: str | None = None, sharpen: bool = False) -> int:
    """Segment images and folders of images: OUT/NAME.png (mask), NAME.overlay.png (picture) and NAME.json (areas).

    For example: pseudolabel segment photo.jpg --classes "dog, red car" --out runs/photo

    NAME is the image's path below the folder that was given, without suffix. What is done already with the same
    settings is left out, so that a run that was stopped goes on; files that this package did not write stay.

    Args:
        images: image files, or folders that hold them.
        classes: what is in the images: names with commas; or the name or file of a vocabulary, such as voc, of whose
            classes CLIP and captions pick; or auto, the nouns of a caption, which is the default. DiffSeg gives regions
            without names where nothing is said.
        sharpen: let DiffSegmenter's and ELBO's maps follow the image's edges with DenseCRF.
    """
    from pseudolabel.stages.segment import segment_images

    return segment_images(experiment, images, classes, sharpen).report()


def sheet(experiment: Experiment, out_file: str = "", rows: int = 12, title: str = "") -> int:
    """Draw a contact sheet of the first samples: image, ground truth, and CAM, pseudo-mask or segments.

    Args:
        out_file: the PNG to write; OUT/sheet.png where it is not given.
        rows: number of samples.
        title: printed on top.
    """
    from pseudolabel.stages.sheet import draw_sheet

    target = out_file or f"{experiment.out.rstrip('/')}/sheet.png"
    draw_sheet(experiment, target, rows, title)
    print(f"contact sheet -> {target}")
    return 0


def verify(folder: str) -> int:
    """Check every hash, count and member of a folder of CAM or mask shards.

    Args:
        folder: such as runs/voc/masks.
    """
    from pseudolabel.io.folder import Folder
    from pseudolabel.runtime.progress import show_progress
    from pseudolabel.shards.verify import verify as run

    with show_progress("verify", 0, show=sys.stderr.isatty()) as progress:
        faults = run(Folder(folder), lambda done, total: progress.update(done, 0))
    for fault in faults:
        print(fault)
    failed = "1 failure" if len(faults) == 1 else f"{len(faults):,} failures"
    print(f"{folder}: {failed}" if faults else f"{folder}: complete and valid")
    return 1 if faults else 0


def failures(out: str, csv: str = "") -> int:
    """List every sample that failed or was left out, with its key, the reason, and the file that names it.

    Exit status 3 says that there are failures, 0 that there are none.

    Args:
        out: output folder of cams, refine, generate or filter, such as runs/voc, or a folder in it, such as
            runs/voc/cams; or the folder of captions.
        csv: write them to this file, too, with the columns kind, key, origin, status and message.
    """
    from pseudolabel.errors import FAILED_SAMPLES_EXIT
    from pseudolabel.io.folder import Folder
    from pseudolabel.io.ownership import write_own
    from pseudolabel.shards.failures import count, find_failures, to_csv
    from pseudolabel.shards.ledger import SKIPPED

    found = find_failures(Folder(out))
    for kind, failure in found:
        origin = "" if failure.origin in failure.message else f" [{failure.origin}]"
        print(escaped(f"{kind} {failure.key}: {failure.status}: {failure.message}{origin}"))
    if csv:
        write_own(csv, to_csv(found), "--csv")
        print(escaped(f"{len(found):,} lines -> {csv}"))
    print(escaped(f"{out}: {count(found)}"))
    return FAILED_SAMPLES_EXIT if any(failure.status != SKIPPED for _, failure in found) else 0


def train(
    config: str, work_dir: Path | None = None, resume: bool = False, init: str = "", cfg_options: list[str] = NO_OPTIONS
) -> int:
    """Train a segmenter on pseudo-mask shards from an MMSegmentation config; `accelerate launch` uses several devices.

    Args:
        config: path of a config, or the name of one that ships, such as deeplabv2_r101_voc12_imagenet.
        work_dir: folder of checkpoints and logs; work_dirs/CONFIG where it is not given.
        resume: go on from the newest checkpoint in the work folder.
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
        work_dir: folder of logs and metrics; work_dirs/CONFIG where it is not given.
        split: another list of the data set; one without ground truth, such as VOC's test, is predicted, not scored.
        out: folder to write the predictions to, as palette PNGs, each under its image's path below the data set's.
        cfg_options: changes of the config, such as test_evaluator.crf=None model.test_cfg.scales=[1.0].
    """
    from pseudolabel_train.commands import test as run

    return run(config, checkpoint, work_dir, split, out, cfg_options)


def pack_voc_test(predictions: Path, voc: Path, out: Path | None = None, split: str = "test") -> int:
    """Pack predictions for PASCAL VOC's evaluation server, after checking everything that it would refuse.

    Args:
        predictions: folder of palette PNGs, one per image, such as the one `pseudolabel test --out` writes.
        voc: the data set's folder with JPEGImages and ImageSets, such as VOCdevkit/VOC2012.
        out: the archive to write; PREDICTIONS.tar.gz where it is not given.
        split: the list in ImageSets/Segmentation that the archive has to cover.
    """
    from pseudolabel_train.submission import pack

    archive = out or predictions.with_name(f"{predictions.name}.tar.gz")
    print(f"{pack(predictions, voc, split, archive)} predictions -> {archive}")
    return 0


def doctor() -> int:
    """Print versions and devices, what is missing, and the command that fixes it."""
    from pseudolabel.stages.doctor import doctor as run

    return run()


COMMANDS: dict[str, Callable[..., int]] = {
    "shapes": shapes,
    "caption": caption,
    "filter": filter_classes,
    "cams": cams,
    "refine": refine,
    "generate": generate,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "segment": segment,
    "sheet": sheet,
    "verify": verify,
    "failures": failures,
    "train": train,
    "test": score_segmenter,
    "pack-voc-test": pack_voc_test,
    "doctor": doctor,
}
FREE_OF_EXPERIMENT = ("shapes", "verify", "failures", "train", "test", "pack-voc-test", "doctor")
OF_ONE_PROCESS = ("shapes", "evaluate", "segment", "sheet", "verify", "failures", "pack-voc-test", "doctor")
_RESUME = "what is finished is kept; the same command goes on from there"
INTERRUPTED = {
    **dict.fromkeys(("caption", "filter", "cams", "refine", "generate", "reproduce", "segment"), _RESUME),
    "train": "checkpoints are kept; the same command with --resume goes on from the newest",
}


class Parser(ArgumentParser):
    """A parser that names the option that was meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with the message, and for an option that there is not with the most similar one."""
        parser = getattr(ex, "subcommand_parser", None) or self
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0].partition("=")[0]
        similar = get_close_matches(unknown, parser._option_string_actions, 1) if unknown.startswith("-") else []
        super().error(f"{message}; did you mean {similar[0]}?" if similar else message, ex)


def build_parser() -> ArgumentParser:
    """The parser of all commands; settings and their help come from the dataclasses and docstrings."""
    parser = Parser(
        prog="pseudolabel",
        description="From images with image-level labels to pixel-level pseudo-masks with a frozen diffusion model.",
        epilog="Begin with 'pseudolabel doctor'; 'pseudolabel COMMAND --help' explains every setting.",
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, function in COMMANDS.items():
        command = Parser(description=_doc(function).split("\n\nArgs")[0], usage=_usage(name, function))
        if name not in FREE_OF_EXPERIMENT:
            command.add_argument(
                "--config",
                action="config",
                help="experiment file (YAML), or the name of one that ships, such as shapes; later options override it",
            )
            command.add_class_arguments(Experiment, as_group=False, sub_configs=True, skip={"own_settings"})
            for method in METHODS.values():
                if method.name not in Experiment.__dataclass_fields__:
                    command.add_class_arguments(method.settings, method.name)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name != "experiment":
                _add_argument(command, function, parameter)
        commands.add_subcommand(name, command, help=_doc(function).split("\n")[0])
    return parser


def _doc(function: Callable[..., int]) -> str:
    return inspect.getdoc(function) or ""


def _add_argument(command: ArgumentParser, function: Callable[..., int], parameter: inspect.Parameter) -> None:
    """An argument of the command for one of the function's: required ones go by place, the rest by `--name`."""
    documented = docstring_parser.parse(_doc(function)).params
    text = next((param.description for param in documented if param.arg_name == parameter.name), None)
    option = f"--{parameter.name.replace('_', '-')}"
    if parameter.annotation is bool:
        command.add_argument(option, action="store_true", help=text)
    elif parameter.annotation == list[str]:
        if parameter.default is parameter.empty:
            command.add_argument(parameter.name, nargs="+", help=text)
        else:
            command.add_argument(option, nargs="+", default=[], help=text)
    elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
        command.add_argument(option, type=parameter.annotation, required=True, help=text)
    elif parameter.default is parameter.empty:
        command.add_argument(parameter.name, type=parameter.annotation, help=text)
    else:
        command.add_argument(option, type=parameter.annotation, default=parameter.default, help=text)


def _usage(name: str, function: Callable[..., int]) -> str:
    """A short line in place of one with every setting, which would hide the message of an error."""
    words = []
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty and key != "experiment":
            is_option = parameter.kind is parameter.KEYWORD_ONLY
            words.append(f"--{key} {key.upper()}" if is_option else key.upper())
    has_experiment = name not in FREE_OF_EXPERIMENT
    settings = ["[--config FILE]", "[--SETTING VALUE ...]"] if has_experiment else []
    return " ".join(["pseudolabel", name, *words, *settings])


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors that the user can fix end in one message and their status, not in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no run
    sleep_while_waiting()
    end_with_launcher()
    with ended_by_interrupt("pseudolabel: interrupted") if arguments is None else nullcontext():
        try:
            resolved = _resolve_shipped(sys.argv[1:] if arguments is None else arguments)
            load_plugins(_named_plugins(resolved))
        except SettingError as error:
            build_parser().error(str(error))
        parser = build_parser()
        parsed = parser.parse_args(resolved)
    advice = INTERRUPTED.get(parsed.command, "nothing was written; run it again")
    message = f"pseudolabel {parsed.command}: interrupted; {advice}"
    with ended_by_interrupt(message) if arguments is None else nullcontext():
        return _explain_errors(parsed.command, lambda: _run(parsed.command, parser.instantiate(parsed)[parsed.command]))


def _explain_errors(command: str, run: Callable[[], int]) -> int:
    if command in OF_ONE_PROCESS and stands_aside(command):
        return 0
    try:
        return run()
    except UserError as error:
        print(escaped(f"pseudolabel {command}: {error}", keep="\n"), file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        print(f"pseudolabel {command}: {error}; say: pip install 'pseudolabel[train]'", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(name: str, settings: Namespace) -> int:
    values = dict(settings)
    if name not in FREE_OF_EXPERIMENT:
        values.pop("config")
        names = [field.name for field in fields(Experiment) if field.name != "own_settings"]
        own = {name: values.pop(name) for name in METHODS if name not in names}
        values["experiment"] = Experiment(**{name: values.pop(name) for name in names}, own_settings=own)
    return COMMANDS[name](**values)


def _named_plugins(arguments: list[str]) -> list[str]:
    """The files after `--plugins` and in experiment files, which are run before the options are known."""
    named: list[str] = []
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugins", nargs="+", default=[], action="extend")
    parser.add_argument("--config", action="append", default=[])
    known = parser.parse_known_args(arguments)[0]
    for config in known.config:
        with suppress(OSError, yaml.YAMLError, AttributeError):  # the parser says what is wrong with it
            named += yaml.safe_load(Path(config).read_text()).get("plugins") or []
    return named + known.plugins


def _resolve_shipped(arguments: list[str]) -> list[str]:
    """Let `--config NAME`, `--crf=NAME` and so on stand for files that ship, where no such file is here."""
    resolved = list(arguments)
    for place, (argument, before) in enumerate(zip(arguments, ["", *arguments], strict=False)):
        option, joined, value = argument.partition("=")
        option, value = (option, value) if joined else (before, argument)
        check_shipped(option, value)
        resolved[place] = f"{option}={resolve_shipped(option, value)}" if joined else resolve_shipped(option, value)
    return resolved


if __name__ == "__main__":
    sys.exit(main())
