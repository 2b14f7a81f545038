"""The paper's ablations as runs of the ordinary stages: one output folder per variant, scored side by side."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from pseudolabel.config import DiffSegmenterConfig, Experiment
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.ledger import INDEX, encode_json
from pseudolabel.stages.evaluate import METRICS, evaluate
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.units import Rank

TableName = Literal["components", "timesteps"]
LOOK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Variant:
    """A row of an ablation: what it is called, what it changes, and the paper's CAM mIoU on VOC train, in per cent."""

    name: str
    change: Callable[[Experiment], Experiment]
    paper: float | None


def _method(**switches: Any) -> Callable[[Experiment], Experiment]:
    return lambda experiment: replace(experiment, diffsegmenter=replace(experiment.diffsegmenter, **switches))


def _equal(method: DiffSegmenterConfig) -> dict[int, float]:
    return {factor: 1 / len(method.level_weights) for factor in method.level_weights}


def _components(experiment: Experiment) -> list[Variant]:
    """Table 4. `tuned` is the experiment's own choice of weights and self-attention."""
    method = experiment.diffsegmenter
    plain = {"self_attention": "none", "level_weights": _equal(method)}
    rows = [
        Variant("cross-attention only, equal weights", _method(**plain), 61.25),
        Variant("+ self-attention of all layers", _method(**{**plain, "self_attention": "all"}), 65.01),
        Variant("+ chosen self-attention instead", _method(level_weights=_equal(method)), 67.89),
        Variant("tuned weights, chosen self-attention", _method(), 70.49),
        Variant("tuned weights, cross-attention only", _method(self_attention="none"), None),
        Variant("tuned, without ++", _method(class_weight=1.0), 67.99),
    ]
    if experiment.captions.source != "none":
        rows.append(Variant("tuned, without captions", _without_captions, 69.46))
        rows.append(
            Variant("tuned, without captions or ++", lambda e: _without_captions(_method(class_weight=1.0)(e)), 65.32)
        )
    return rows


def _without_captions(experiment: Experiment) -> Experiment:
    return replace(experiment, captions=replace(experiment.captions, source="none"))


def _timesteps(experiment: Experiment) -> list[Variant]:
    """Table 5."""
    single = {1: 69.10, 50: 69.94, 100: 70.30, 150: 69.69}
    rows = [Variant(f"t = {t}", _method(timesteps=[t]), paper) for t, paper in single.items()]
    return [*rows, Variant("mean over t = 1, 50, 100, 150", _method(timesteps=list(single)), 70.49)]


TABLES: dict[str, Callable[[Experiment], list[Variant]]] = {"components": _components, "timesteps": _timesteps}


def ablate(experiment: Experiment, table: TableName, rank: Rank) -> int:
    """Run and score every variant of a table, in `OUT/ablate-TABLE/N`; the first rank prints and writes the table.

    Returns:
        The exit status: 0, or that of the worst variant.
    """
    folder = Folder(f"{experiment.out}/ablate-{table}")
    rows, status = [], 0
    for number, variant in enumerate(TABLES[table](experiment)):
        own = replace(variant.change(experiment), out=f"{folder.path}/{number}")
        summary = write_labels(own, rank)
        status = max(status, summary.exit_status if summary else 0)
        if rank.is_main:
            rows.append({"variant": variant.name, "paper_voc_train": variant.paper, **_score(own, rank)})
    if rank.is_main:
        folder.write_bytes(METRICS, encode_json(rows))
        Console().print(_draw(rows, table, experiment))
    return status if rank.is_main else 0  # another's status would make the launcher end the one that scores


def _score(experiment: Experiment, rank: Rank) -> dict[str, Any]:
    """Score a variant once the other ranks have written their shards of it, too."""
    while not (Folder(experiment.out) / "cams").exists(INDEX):
        time.sleep(LOOK_AGAIN_SECONDS)
    report = evaluate(experiment, "cams", rank).to_dict()
    oracle, fixed = report["oracle"], report["fixed"]
    return {
        "oracle_miou": oracle["miou"],
        "oracle_threshold": oracle["threshold"],
        "fixed_miou": fixed["miou"],
        "fixed_threshold": fixed["threshold"],
        "images": report["images"],
    }


def _draw(rows: list[dict[str, Any]], name: str, experiment: Experiment) -> Table:
    images = rows[0]["images"]
    table = Table(
        title=f"{name}: CAM mIoU on {experiment.source.split}, {images} images, model {experiment.model.name}"
    )
    for heading in ("variant", "oracle", "at", "fixed", "at", "paper, VOC train"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in rows:
        paper = "" if row["paper_voc_train"] is None else f"{row['paper_voc_train']:.2f}"
        oracle = (f"{100 * row['oracle_miou']:.2f}", f"{row['oracle_threshold']:.2f}")
        fixed = (f"{100 * row['fixed_miou']:.2f}", f"{row['fixed_threshold']:.2f}")
        table.add_row(row["variant"], *oracle, *fixed, paper)
    return table
