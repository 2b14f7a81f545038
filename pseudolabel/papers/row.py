"""Rows and tables as plain data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pseudolabel.config import Experiment

Change = Callable[[Experiment], Experiment]
Labels = Literal["true", "predicted", "all"]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as in the paper.
        data: the data set, a key of `pseudolabel.papers.data.DATA`.
        published: the paper's scores by name, in per cent.
        change: applied to the experiment before the run; None for a row of another method, which is only quoted.
        labels: the classes a method is given: the `true` ones, those `predicted` by the category filter, or `all`.
        captions: whether BLIP's captions extend the prompts.
        on_shapes: whether a shipped model can run the row on Shapes; otherwise it is quoted.
    """

    name: str
    data: str
    published: Mapping[str, float] = field(default_factory=dict)
    change: Change | None = None
    labels: Labels = "true"
    captions: bool = False
    on_shapes: bool = True


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        title: the paper's title, shortened.
        scores: the scores that are printed, by their names in `pseudolabel.papers.reproduce.read_scores`.
        protocol: how the paper scored, where this differs from the usual definition.
        rows: in the paper's order.
    """

    title: str
    scores: tuple[str, ...]
    protocol: str
    rows: tuple[Row, ...]


def setting(section: str, **values: Any) -> Change:
    """The change that sets fields of one section of the experiment, such as `diffseg`."""
    return lambda experiment: replace(experiment, **{section: replace(getattr(experiment, section), **values)})


def method(name: str, **values: Any) -> Change:
    """The change that chooses a method and sets its settings."""
    return lambda experiment: replace(setting(name, **values)(experiment), method=name)


def both(first: Change, second: Change) -> Change:
    """One change after the other."""
    return lambda experiment: second(first(experiment))


def quoted(data: str, score: str, figures: Mapping[str, float]) -> tuple[Row, ...]:
    """Rows of other methods, with the scores that the paper prints."""
    return tuple(Row(name, data, {score: figure}) for name, figure in figures.items())
