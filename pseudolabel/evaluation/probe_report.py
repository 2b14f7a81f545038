"""What `probe` measures of attention layers, as rows, JSON and text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

PASSES = 3
AFFINITIES = ("attention", "squared", "perfect")


@dataclass(frozen=True)
class CrossRow:
    """How well a cross-attention layer's maps localise classes.

    Attributes:
        number: of the layer among those of its kind, as `cross_layers` and `self_layers` take it.
        layer: name of the module in the U-Net.
        stride: image side / map side.
        timestep: noise level.
        miou: of the mean over heads at the best background threshold, in [0, 1].
        heads: the same of each head alone.
    """

    number: int
    layer: str
    stride: int
    timestep: int
    miou: float
    heads: list[float]


@dataclass(frozen=True)
class SelfRow:
    """How well a self-attention layer follows objects, and what it does to the fused cross-attention map.

    Attributes:
        number: of the layer among those of its kind, as `cross_layers` and `self_layers` take it.
        layer: name of the module in the U-Net.
        stride: image side / map side.
        timestep: noise level.
        share: of an object position's attention that stays in the object, mean over heads and positions.
        lift: the same, divided by the object's share of the image; 1 is chance.
        head_share: `share` of each head.
        head_lift: `lift` of each head.
        head_miou: mIoU in [0, 1] of the fused map after one pass of each head.
        start: mIoU of the fused map at the layer's resolution, without self-attention.
        passes: mIoU after 1, 2, ... passes of each of `AFFINITIES`; `perfect` has one pass only.
    """

    number: int
    layer: str
    stride: int
    timestep: int
    share: float
    lift: float
    head_share: list[float]
    head_lift: list[float]
    head_miou: list[float]
    start: float
    passes: dict[str, list[float]]


@dataclass(frozen=True)
class ProbeReport:
    """The measurements of all layers and timesteps.

    Attributes:
        model: name of the checkpoint.
        split: of the images.
        images: number of images measured.
        cross: rows of cross-attention layers, in the order of a forward pass, by timestep.
        self_attention: rows of self-attention layers, in the same order.
        failures: messages of the images that could not be measured, by key.
    """

    model: str
    split: str
    images: int
    cross: list[CrossRow]
    self_attention: list[SelfRow]
    failures: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def advice(self) -> Iterator[str]:
        """Lines that name the layers and heads that did best."""
        best = max(self.cross, key=lambda row: row.miou)
        place = f"number {best.number}, {best.layer} (stride {best.stride}) at t = {best.timestep}"
        yield f"best cross-attention: {place}, {_percent(best.miou)} mIoU"
        cohesive = max(self.self_attention, key=lambda row: row.lift)
        place = f"number {cohesive.number}, {cohesive.layer} (stride {cohesive.stride}) at t = {cohesive.timestep}"
        best_head = f"best head {_argmax(cohesive.head_lift)} with {max(cohesive.head_lift):.1f}"
        yield f"most cohesive self-attention: {place}, lift {cohesive.lift:.1f}, {best_head}"
        row, name, count, score = max(self._completions(), key=lambda found: found[3])
        loss = "" if score > row.start else "; the map itself is better"
        yield (
            f"best completion: {count} x {name} of number {row.number}, {row.layer} at t = {row.timestep}, "
            f"{_percent(score)} mIoU after {_percent(row.start)} without{loss}"
        )

    def _completions(self) -> Iterator[tuple[SelfRow, str, int, float]]:
        for row in self.self_attention:
            for name in ("attention", "squared"):
                yield from ((row, name, count, score) for count, score in enumerate(row.passes[name], 1))


def print_probe(report: ProbeReport, console: Console) -> None:
    """Print two tables and the layers that did best."""
    console.print(_cross_table(report))
    console.print(_self_table(report))
    for line in report.advice():
        console.print(line, highlight=False)


def _cross_table(report: ProbeReport) -> Table:
    title = f"Cross-attention: mIoU at the best threshold, {report.images} images"
    table = _table(title, ["no.", "layer", "stride", "t", "mean of heads", "best head", "each head"])
    for row in report.cross:
        heads = " ".join(_percent(value) for value in row.heads)
        best = f"{_argmax(row.heads)}: {_percent(max(row.heads))}"
        table.add_row(*_place(row), _percent(row.miou), best, heads)
    return table


def _self_table(report: ProbeReport) -> Table:
    title = "Self-attention: how much stays in the object; mIoU after 1, 2, 3 passes"
    columns = ["share", "lift", "best head", "fused", "attention", "squared", "perfect"]
    table = _table(title, ["no.", "layer", "stride", "t", *columns])
    for row in report.self_attention:
        table.add_row(
            *_place(row),
            f"{row.share:.2f}",
            f"{row.lift:.1f}",
            f"{_argmax(row.head_lift)}: {max(row.head_lift):.1f}",
            _percent(row.start),
            *(" ".join(f"{100 * value:.0f}" for value in row.passes[name]) for name in AFFINITIES),
        )
    return table


def _place(row: CrossRow | SelfRow) -> tuple[str, str, str, str]:
    return str(row.number), short_name(row.layer), str(row.stride), str(row.timestep)


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column == "layer" else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column != "each head")
    return table


def short_name(layer: str) -> str:
    """`down 0.1.0` for `down_blocks.0.attentions.1.transformer_blocks.0.attn1`."""
    block, *rest = layer.split(".")
    return f"{block.partition('_')[0]} {'.'.join(part for part in rest if part.isdigit())}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
