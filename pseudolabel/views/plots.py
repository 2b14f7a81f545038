"""Plots of an evaluation: threshold curve, IoU by class, confusion matrix; each saves a PNG and returns its figure."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.evaluation.report import ORACLE_ORIGIN, Report

INK, GREY, LIGHT = "#202124", "#70757a", "#dadce0"
ACCENT, SECOND, BAR = "#1a73e8", "#e8710a", "#6ea3ec"
DASHES = (0, (4, 3))
DPI = 144
MOST_NUMBERED = 25  # largest number of labels for which a confusion matrix prints numbers in its cells


def plot_threshold_curve(report: Report, out: Path | BinaryIO) -> Figure:
    """Mean IoU over the background threshold, with marks at the fixed and the oracle threshold.

    Args:
        report: of kind `cams`.
        out: the PNG to write, or a file that takes it.

    Raises:
        ValueError: if the report has no curve.
    """
    if report.curve is None or report.fixed is None or report.oracle is None:
        raise ValueError(f"a report on {report.kind} has no threshold curve")
    figure, axes = _figure(7.5, 5.2)
    axes.plot(report.curve.thresholds, 100 * np.array(report.curve.miou), color=INK, linewidth=2, zorder=2)
    fixed = f"fixed {report.fixed.threshold:.2f}: {100 * report.fixed.miou:.2f}\nchosen on: {report.fixed.chosen_on}"
    oracle = f"oracle {report.oracle.threshold:.2f}: {100 * report.oracle.miou:.2f}\nchosen on: {ORACLE_ORIGIN}"
    for mark, label, colour, symbol in ((report.oracle, oracle, SECOND, "D"), (report.fixed, fixed, ACCENT, "o")):
        score = 100 * mark.miou
        axes.plot([mark.threshold] * 2, [0, score], color=colour, linewidth=1, linestyle=DASHES, zorder=1)
        axes.plot([mark.threshold], [score], symbol, color=colour, markersize=8, label=label, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 100), xlabel="background threshold", ylabel="mIoU (%)")
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    # Below the axes, clear of the curve.
    axes.legend(loc="upper left", bbox_to_anchor=(-0.01, -0.16), ncols=2, frameon=False, columnspacing=4, fontsize=9)
    _title(axes, f"mIoU by threshold on {report.split}", f"{report.images:,} images")
    return save(figure, out)


def plot_class_iou(report: Report, out: Path | BinaryIO) -> Figure:
    """A bar for the IoU of each class, in the vocabulary's order, and a line at their mean.

    Args:
        report: of CAMs or masks.
        out: the PNG to write, or a file that takes it.
    """
    names = list(report.per_class)
    ious = 100 * np.array([scores.iou for scores in report.per_class.values()])
    figure, axes = _figure(7.5, 1.5 + 0.24 * len(names))
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(ious), height=0.66, color=[GREY, *[BAR] * (len(names) - 1)])
    for place, iou in enumerate(ious.tolist()):
        note = "absent" if np.isnan(iou) else f"{iou:.1f}"
        axes.text(109, place, note, ha="right", va="center_baseline", fontsize=9, color=GREY if np.isnan(iou) else INK)
    axes.axvline(100 * report.miou, color=SECOND, linewidth=1.2, linestyle=DASHES)
    axes.set(xlim=(0, 109), ylim=(len(names) - 0.4, -0.6), xlabel="IoU (%)")
    axes.set_yticks(places, names)
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _title(axes, f"IoU by class on {report.split}", f"{report.images:,} images, mIoU {100 * report.miou:.2f} (dashed)")
    return save(figure, out)


def plot_confusion(confusion: Confusion, names: tuple[str, ...], out: Path | BinaryIO) -> Figure:
    """The confusion matrix, each row as shares of its true label's pixels; rows without pixels are empty.

    The column for ignored predictions (255) is drawn where there are any.

    Args:
        confusion: the counts.
        names: of the N + 1 labels, background first.
        out: the PNG to write, or a file that takes it.

    Raises:
        ValueError: if there are not as many names as labels.
    """
    if len(names) != len(confusion.counts):
        raise ValueError(f"{len(names)} names for {len(confusion.counts)} labels")
    ignored = bool(confusion.counts[:, -1].any())
    counts = confusion.counts if ignored else confusion.counts[:, :-1]
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    columns = [*names, "ignored"] if ignored else list(names)
    side = max(3.2, 0.36 * len(names)) if len(names) <= MOST_NUMBERED else 0.16 * len(names)
    figure, axes = _figure(side + 1.9, side + 1.9)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    _label_matrix(axes, list(names), columns)
    if len(names) <= MOST_NUMBERED:
        _number_cells(axes, shares)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, shrink=0.6)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=GREY)
    bar.set_label("% of the row's pixels", color=GREY, fontsize=9)
    _title(axes, "Confusion matrix", "predicted labels of the pixels of each true label, in per cent")
    return save(figure, out)


def plot_draws(curves: Mapping[str, Mapping[int, float]], data: str, out: Path | BinaryIO) -> Figure:
    """Mean IoU over the number of noise draws per map, on a base-2 logarithmic scale; a line for each variant.

    Args:
        curves: mean IoU in [0, 1] by number of draws, for each variant.
        data: what was scored, for the title.
        out: the PNG to write, or a file that takes it.
    """
    figure, axes = _figure(7.5, 5.2)
    for (name, curve), colour in zip(curves.items(), cycle((ACCENT, SECOND, INK, GREY))):
        axes.plot(list(curve), 100 * np.array(list(curve.values())), "o-", color=colour, markersize=5, label=name)
    draws = sorted({number for curve in curves.values() for number in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(draws, [str(number) for number in draws])
    axes.minorticks_off()
    axes.set(ylim=(0, 100), xlabel="draws", ylabel="mIoU (%)")
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    _title(axes, "mIoU by number of draws", data)
    return save(figure, out)


def _label_matrix(axes: Axes, rows: list[str], columns: list[str]) -> None:
    small = 9 if len(rows) <= MOST_NUMBERED else 7
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=small)
    axes.set_yticks(range(len(rows)), rows, fontsize=small)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8 if len(rows) <= MOST_NUMBERED else 0.3)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _number_cells(axes: Axes, shares: np.ndarray) -> None:
    """Print the shares, rounded to per cent; those that round to 0 are left out."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:
            colour = "white" if share > 55 else INK
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=colour)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that pyplot does not keep open; size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """The look of all plots."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT)
    axes.tick_params(color=LIGHT, labelcolor=INK)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)


def _title(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, color=INK, pad=24)
    axes.annotate(note, (0, 1), (0, 9), "axes fraction", "offset points", fontsize=9.5, color=GREY)


def save(figure: Figure, out: Path | BinaryIO) -> Figure:
    """Write a figure as PNG, and return it."""
    figure.savefig(out, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.2)
    return figure
