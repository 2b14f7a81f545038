"""What an mIoU means nothing without: initialisation, scales, CRF, split and number of images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

METRICS = "metrics.json"


@HOOKS.register_module()
class ReportHook(Hook):
    """Prints every validation's and test's score with the circumstances, and writes them to `metrics.json`.

    The file lies in the work folder and holds the latest `val` and the latest `test`.
    """

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report a validation that ran in between or after training."""
        report(runner, "val", metrics or {})

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report a test."""
        report(runner, "test", metrics or {})


def report(runner: Runner, name: str, metrics: dict[str, float]) -> None:
    """Print and write one report; only the main process does."""
    if not is_main_process():
        return
    scores = {key.rpartition("/")[2]: float(value) for key, value in metrics.items()}
    found = {**scores, **describe(runner, name)}
    if "mIoU" in scores:
        circumstances = ", ".join(
            f"{key} {value if value is not None else 'none'}" for key, value in found.items() if key not in scores
        )
        print_log(f"mIoU {scores['mIoU']:.2f} ({circumstances})", logger="current")
    path = Path(runner.work_dir) / METRICS
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, name: found}, indent=2) + "\n")


def describe(runner: Runner, name: str) -> dict[str, Any]:
    """The circumstances of a `val` or `test` score, JSON-ready."""
    loop = runner.val_loop if name == "val" else runner.test_loop
    dataset, test_cfg = loop.dataloader.dataset, runner.cfg.model.get("test_cfg") or {}
    crf = next((metric.crf for metric in loop.evaluator.metrics if getattr(metric, "crf", None)), None)
    return {
        "split": Path(getattr(dataset, "ann_file", "") or getattr(dataset, "shards", "")).stem,
        "images": len(dataset),
        "initialisation": describe_initialisation(runner.cfg.model),
        "scales": list(test_cfg.get("scales", [1.0])),
        "flip": bool(test_cfg.get("flip", False)),
        "crf": asdict(crf) if crf is not None else None,
        "iteration": runner.iter,
    }


def describe_initialisation(model: dict[str, Any]) -> str:
    """Where the model's weights came from before training, by its config."""
    init = model.get("init_cfg") or model["backbone"].get("init_cfg") or {}
    return str(init.get("checkpoint", "random")) if isinstance(init, dict) else "random"
