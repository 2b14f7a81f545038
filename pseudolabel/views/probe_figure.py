"""The figure of `probe`: two heat maps of layers and heads, and what passes of self-attention give."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pseudolabel.evaluation.probe_report import ProbeReport, SelfRow, short_name
from pseudolabel.views.plots import ACCENT, GREY, INK, SECOND, save, style

COLOURS = {"attention": ACCENT, "squared": SECOND}
LABELS = {"attention": "attention as it is", "squared": "rows squared"}


def plot_probe(report: ProbeReport, out: Path | BinaryIO) -> Figure:
    """Localisation by cross-attention layer and head, cohesion by self-attention layer and head, mIoU by passes.

    The heat maps are of the timestep with the best cross-attention layer; the curves of the layer and timestep whose
    self-attention completes the fused map best.

    Args:
        report: of at least one cross- and one self-attention layer.
        out: the PNG to write, or a file that takes it.
    """
    timestep = max(report.cross, key=lambda row: row.miou).timestep
    cross = [row for row in report.cross if row.timestep == timestep]
    own = [row for row in report.self_attention if row.timestep == timestep]
    best = max(report.self_attention, key=lambda row: max(*row.passes["attention"], *row.passes["squared"]))
    rows = max(len(cross), len(own))
    figure = Figure(figsize=(15, 2.6 + 0.3 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    localised = [[row.miou, *row.heads] for row in cross]
    _heat_map(left, f"Cross-attention, mIoU, t = {timestep}", [_name(r.layer, r.stride) for r in cross], localised, 100)
    lifts = [[row.lift, *row.head_lift] for row in own]
    _heat_map(middle, f"Self-attention, lift, t = {timestep}", [_name(r.layer, r.stride) for r in own], lifts, 1)
    _curves(right, best)
    figure.suptitle(f"Attention of {report.model} on {report.split}, {report.images:,} images", color=INK, fontsize=13)
    return save(figure, out)


def _heat_map(axes: Axes, title: str, names: list[str], values: Sequence[Sequence[float]], factor: float) -> None:
    """A row per layer: the mean over heads, then each head; shorter rows end in empty cells."""
    width = max(map(len, values))
    cells = np.array([[*row, *[np.nan] * (width - len(row))] for row in values]) * factor
    axes.imshow(cells, cmap="Blues", aspect="auto", vmin=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(width), ["mean", *map(str, range(width - 1))], fontsize=8)
    axes.set_xlabel("head")
    middle = np.nanmax(cells) * 0.6
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            colour = "white" if value > middle else INK
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    style(axes)


def _curves(axes: Axes, row: SelfRow) -> None:
    for name, colour in COLOURS.items():
        scores = [100 * value for value in (row.start, *row.passes[name])]
        axes.plot(range(len(scores)), scores, "o-", color=colour, markersize=5, label=LABELS[name])
    axes.axhline(100 * row.passes["perfect"][0], color=GREY, linestyle="--", linewidth=1, label="perfect affinity")
    axes.set_xticks(range(len(row.passes["attention"]) + 1))
    axes.set(xlabel="passes", ylabel="mIoU (%)", ylim=(0, 100))
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    axes.set_title(f"{_name(row.layer, row.stride)}, t = {row.timestep}", loc="left", fontsize=11, color=INK)
    style(axes)


def _name(layer: str, stride: int) -> str:
    return f"{short_name(layer)} (stride {stride})"
