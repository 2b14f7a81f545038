"""Report scores together with their conditions: initialisation, training data, scales, CRF, split, image counts."""

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
    """Log the score of every validation and test with its conditions, and write both to `metrics.json`.

    The file is in the work folder and holds the latest `val` and the latest `test`. The conditions of training are
    saved in checkpoints.

    Args:
        training: conditions of training of the tested checkpoint, from `describe_training`.
    """

    def __init__(self, training: Mapping[str, Any] | None = None) -> None:
        self.training = dict(training or UNKNOWN)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the conditions of training in the checkpoint."""
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
    """Log and write one report, on the main process only."""
    if not is_main_process():
        return
    scores = {key.rpartition("/")[2]: float(value) for key, value in metrics.items()}
    conditions = {**describe_evaluation(runner, name), **training}
    if "mIoU" in scores:
        words = ", ".join(f"{key} {'none' if value is None else value}" for key, value in conditions.items())
        print_log(f"mIoU {scores['mIoU']:.2f} ({words})", logger="current")
    loop = runner.val_loop if name == "val" else runner.test_loop
    if failed := failures(loop.evaluator.metrics):
        conditions["failures"] = failed
    record_metrics(runner.work_dir, name, {**scores, **conditions}, WORK_DIR)


def check_work_dir(cfg: Config) -> None:
    """Check, before the Runner is built, that no file of the user's in the work folder would be overwritten.

    Raises:
        UserError: if its `metrics.json` is not ours, or MMEngine's copy of the config would overwrite the config.
    """
    check_metrics(cfg.work_dir, option=WORK_DIR)
    written = Path(cfg.work_dir) / Path(cfg.filename).name
    if written.exists() and written.samefile(cfg.filename):
        raise UserError(f"MMEngine's copy of the config would overwrite '{cfg.filename}'; choose another {WORK_DIR}")


def describe_evaluation(runner: Runner, name: str) -> dict[str, Any]:
    """The conditions of a `val` or `test` score, JSON-serializable."""
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
    """The images that a metric did not score: reason by name."""
    return {key: reason for metric in metrics for key, reason in getattr(metric, "failures", {}).items()}


def describe_training(runner: Runner) -> dict[str, Any]:
    """The conditions of training so far, JSON-serializable."""
    loader = runner.train_loop.dataloader
    return {
        "initialisation": describe_initialisation(runner.cfg),
        "trained_on": describe_data(loader.dataset),
        "training_images": len(loader.dataset),
        "batch": total_batch(runner.cfg),
        "iteration": runner.iter,
    }


def describe_data(dataset: Dataset) -> str:
    """The image list or the shards of a data set."""
    listed = getattr(dataset, "ann_file", "")
    return Path(listed).stem if listed else str(getattr(dataset, "shards", type(dataset).__name__))


def describe_initialisation(cfg: Mapping[str, Any]) -> str:
    """The initial weights' path or URL in the config, `random` without one."""
    model = cfg["model"]
    parts = [model, model.get("backbone") or {}]
    places = [None if cfg.get("resume") else cfg.get("load_from"), *(part.get("pretrained") for part in parts)]
    places += [init.get("checkpoint") for part in parts if isinstance(init := part.get("init_cfg"), dict)]
    return next((str(place) for place in places if place), "random")


def total_batch(cfg: Mapping[str, Any]) -> int:
    """Images per optimizer step, over all processes and accumulated batches."""
    return cfg["train_dataloader"]["batch_size"] * get_world_size() * cfg["optim_wrapper"].get("accumulative_counts", 1)
