"""The tables of DiffSeg (Tian et al. 2024); other methods' scores as printed there."""

from collections.abc import Mapping
from typing import Any

from pseudolabel.config import Experiment
from pseudolabel.io.shipped import NAMES
from pseudolabel.papers.row import Change, Row, Table, both, method, setting

ACCURACY, MIOU, MATCHED = "accuracy, official", "mIoU, official", "mIoU, matched"
SCORES = (ACCURACY, MIOU, MATCHED)
PROTOCOL = (
    "Hungarian matching per image; official: unmatched segments are false positives of absent classes, as released; "
    "matched: they are not"
)
SHAPES_SMALL, SHAPES_ANCHORS = 64, 8
SHAPES_SIDE = 16  # of the small model's largest attention maps

_COCO = {
    "IIC": (21.8, 6.7), "MDC": (32.3, 9.8), "PiCLE": (48.1, 13.8), "PiCLE+H": (50.0, 14.4), "STEGO": (56.9, 28.2),
    "MaskCLIP": (32.2, 19.6), "ReCo": (46.1, 26.3),
}  # fmt: skip
_CITYSCAPES = {
    "IIC": (47.9, 6.4), "MDC": (40.7, 7.1), "PiCLE": (65.5, 12.3), "STEGO": (73.2, 21.0), "MaskCLIP": (35.9, 10.0),
    "ReCo": (74.6, 19.3),
}  # fmt: skip


def _quoted(data: str, figures: Mapping[str, tuple[float, float]]) -> tuple[Row, ...]:
    return tuple(Row(name, data, {ACCURACY: a, MIOU: m}) for name, (a, m) in figures.items())


def _run(name: str, data: str, accuracy: float | None, miou: float | None, change: Change) -> Row:
    figures = {ACCURACY: accuracy, MIOU: miou}
    return Row(name, data, {score: value for score, value in figures.items() if value is not None}, change)


def _diffseg(tau: float, **settings: Any) -> Change:
    """The paper's crop, merging and threshold; on Shapes the threshold from the experiment."""

    def change(experiment: Experiment) -> Experiment:
        chosen = experiment.diffseg.threshold if experiment.model.name in NAMES else tau
        return method("diffseg", **{"fit": "crop", "grouping": "merge", "threshold": chosen, **settings})(experiment)

    return change


def _small(experiment: Experiment) -> Experiment:
    """320 pixels; on Shapes half of the small model's image size, with as many anchors as its attention maps allow."""
    if experiment.model.name not in NAMES:
        return setting("model", image_size=320)(experiment)
    halved = setting("model", image_size=SHAPES_SMALL)
    return both(halved, setting("diffseg", anchors=min(experiment.diffseg.anchors, SHAPES_ANCHORS)))(experiment)


TABLE_1 = Table(
    "DiffSeg, Table 1: COCO-Stuff-27",
    SCORES,
    PROTOCOL,
    (
        *_quoted("COCO-Stuff-27", _COCO),
        _run("K-Means-C (512)", "COCO-Stuff-27", 58.9, 33.7, _diffseg(1.1, grouping="kmeans", clusters=6)),
        _run("K-Means-S (512)", "COCO-Stuff-27", 62.6, 34.7, _diffseg(1.1, grouping="kmeans", clusters=0)),
        _run("DiffSeg (320)", "COCO-Stuff-27", 72.5, 43.0, both(_diffseg(1.1), _small)),
        _run("DiffSeg (512)", "COCO-Stuff-27", 72.5, 43.6, _diffseg(1.1)),
    ),
)

TABLE_2 = Table(
    "DiffSeg, Table 2: Cityscapes",
    SCORES,
    PROTOCOL,
    (
        *_quoted("Cityscapes", _CITYSCAPES),
        _run("DiffSeg (320)", "Cityscapes", 67.3, 15.2, both(_diffseg(0.9), _small)),
        _run("DiffSeg (512)", "Cityscapes", 76.0, 21.2, _diffseg(0.9)),
    ),
)


def _ablation(name: str, setting_name: str, values: tuple[float, ...], **others: float) -> tuple[Row, ...]:
    """Figure 10, a plot without printed values: one setting varies, the others are fixed."""
    rows = []
    for value in values:
        settings = {"timestep": 100, **others, setting_name: value}
        on_shapes = setting_name != "anchors" or value <= SHAPES_SIDE
        rows.append(Row(f"{name} = {value:g}", "COCO-Stuff-27", {}, _diffseg(1.0, **settings), on_shapes=on_shapes))
    return tuple(rows)


ABLATIONS = Table(
    "DiffSeg, section 8.5: timestep, anchors, iterations, threshold",
    SCORES,
    PROTOCOL + "; the paper plots these scores without values",
    (
        *_ablation("t", "timestep", (1, 100, 200, 300, 400, 500)),
        *_ablation("M", "anchors", (4, 8, 16, 32)),
        *_ablation("N", "iterations", (2, 3, 4, 5, 6, 7)),
        *_ablation("tau", "threshold", (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)),
    ),
)
