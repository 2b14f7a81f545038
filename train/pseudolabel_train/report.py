"""What an mIoU means nothing without: initialisation, training data, scales, CRF, split and numbers of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch.utils.data import Dataset

from pseudolabel.errors import UserError
from pseudolabel.io.metrics import check_metrics, record_metrics

WORK_DIR = "`work_dir`"
META = "pseudolabel"  # of a checkpoint's `meta`
UNKNOWN = {"initialisation": "unknown", "trained_on": "unknown"}


@HOOKS.register_module()
class ReportHook(Hook):
    """Prints every validation's and test's score with the circumstances, and writes them to `metrics.json`.

    The file lies in the work folder and holds the latest `val` and the latest `test`. Checkpoints carry the
    circumstances of their training along.

    Args:
        training: those of the checkpoint that is tested, as `describe_training` gave them.
    """

    def __init__(self, training: Mapping[str, Any] | None = None) -> None:
        self.training = dict(training or UNKNOWN)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint say what it was trained on."""
        meta = checkpoint["meta"]
        meta[META] = {**describe_training(runner), "iteration": meta["iter"]}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report a validation during or after training."""
        training = self.training if isinstance(runner._train_loop, dict | None) else describe_training(runner)
        report(runner, "val", metrics or {}, training)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report a test."""
        report(runner, "test", metrics or {}, self.training)


def report(runner: Runner, name: str, metrics: Mapping[str, float], training: Mapping[str, Any]) -> None:
    """Print and write one report; only the main process does."""
    if not is_main_process():
        return
    scores = {key.rpartition("/")[2]: float(value) for key, value in metrics.items()}
    circumstances = {**describe_evaluation(runner, name), **training}
    if "mIoU" in scores:
        words = ", ".join(f"{key} {'none' if value is None else value}" for key, value in circumstances.items())
        print_log(f"mIoU {scores['mIoU']:.2f} ({words})", logger="current")
    loop = runner.val_loop if name == "val" else runner.test_loop
    if failed := failures(loop.evaluator.metrics):
        circumstances["failures"] = failed
    record_metrics(runner.work_dir, name, {**scores, **circumstances}, WORK_DIR)


def check_work_dir(cfg: Config) -> None:
    """Make sure, before the Runner is built, that nothing in the work folder is written over that is a user's.

    Raises:
        UserError: if its `metrics.json` is not ours, or the config lies where MMEngine would write the one in effect.
    """
    check_metrics(cfg.work_dir, option=WORK_DIR)
    written = Path(cfg.work_dir) / Path(cfg.filename).name
    if written.exists() and written.samefile(cfg.filename):
        raise UserError(f"MMEngine would write the config in effect over '{cfg.filename}'; choose another {WORK_DIR}")


def describe_evaluation(runner: Runner, name: str) -> dict[str, Any]:
    """How a `val` or `test` score came about, JSON-ready."""
    loop = runner.val_loop if name == "val" else runner.test_loop
    test_cfg = runner.cfg.model.get("test_cfg") or {}
    crf = next((metric.crf_fields() for metric in loop.evaluator.metrics if getattr(metric, "crf", None)), None)
    failed = failures(loop.evaluator.metrics)
    return {
        "split": describe_data(loop.dataloader.dataset),
        "images": len(loop.dataloader.dataset),
        "scales": list(test_cfg.get("scales", [1.0])),
        "flip": bool(test_cfg.get("flip", False)),
        "crf": crf,
        **({"not_scored": len(failed)} if failed else {}),
    }


def failures(metrics: Sequence[Any]) -> dict[str, str]:
    """Why images were not scored, by name; what any of the metrics tells."""
    return {key: said for metric in metrics for key, said in getattr(metric, "failures", {}).items()}


def describe_training(runner: Runner) -> dict[str, Any]:
    """What the weights are made of so far, JSON-ready."""
    loader = runner.train_loop.dataloader
    return {
        "initialisation": describe_initialisation(runner.cfg),
        "trained_on": describe_data(loader.dataset),
        "training_images": len(loader.dataset),
        "batch": total_batch(runner.cfg),
        "iteration": runner.iter,
    }


def describe_data(dataset: Dataset) -> str:
    """The list or the shards that a data set was made from."""
    listed = getattr(dataset, "ann_file", "")
    return Path(listed).stem if listed else str(getattr(dataset, "shards", type(dataset).__name__))


def describe_initialisation(cfg: Mapping[str, Any]) -> str:
    """Where the weights came from before training, by the config."""
    model = cfg["model"]
    parts = [model, model.get("backbone") or {}]
    places = [None if cfg.get("resume") else cfg.get("load_from"), *(part.get("pretrained") for part in parts)]
    places += [init.get("checkpoint") for part in parts if isinstance(init := part.get("init_cfg"), dict)]
    return next((str(place) for place in places if place), "random")


def total_batch(cfg: Mapping[str, Any]) -> int:
    """Images per step of the optimizer, over all processes and accumulated batches."""
    return cfg["train_dataloader"]["batch_size"] * get_world_size() * cfg["optim_wrapper"].get("accumulative_counts", 1)
