"""The papers' tables as runs of the stages: one folder per row, measured and published scores side by side."""

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pseudolabel.config import Experiment
from pseudolabel.errors import FAILED_SAMPLES_EXIT
from pseudolabel.evaluation.report import Report, SegmentReport
from pseudolabel.experiment_file import Config, open_experiment
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import digest, encode_json
from pseudolabel.io.metrics import METRICS, check_metrics
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.shipped import NAMES
from pseudolabel.papers import diffseg, diffsegmenter, freesegdiff
from pseudolabel.papers.data import select_papers_data, select_shapes
from pseudolabel.papers.names import TableName
from pseudolabel.papers.row import Row, Table
from pseudolabel.runtime.rank import Rank, current_rank
from pseudolabel.shards.ledger import INDEX
from pseudolabel.sources.source import open_source
from pseudolabel.stages.caption import write_captions
from pseudolabel.stages.evaluate import evaluate
from pseudolabel.stages.filter import write_classes
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.method import chosen_method, produced_kind
from pseudolabel.vocabulary import load_vocabulary

log = logging.getLogger(__name__)

TABLES: dict[TableName, Table] = {
    "diffsegmenter-1": diffsegmenter.TABLE_1,
    "diffsegmenter-2": diffsegmenter.TABLE_2,
    "diffsegmenter-4": diffsegmenter.TABLE_4,
    "diffsegmenter-5": diffsegmenter.TABLE_5,
    "diffseg-1": diffseg.TABLE_1,
    "diffseg-2": diffseg.TABLE_2,
    "diffseg-ablations": diffseg.ABLATIONS,
    "freesegdiff-1": freesegdiff.TABLE_1,
    "freesegdiff-2": freesegdiff.TABLE_2,
    "freesegdiff-3": freesegdiff.TABLE_3,
    "freesegdiff-4": freesegdiff.TABLE_4,
}
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Reproduction:
    """A table's rows, measured and published.

    Attributes:
        table: the paper's.
        model: name of the model.
        rows: by row `row` and `data`, `published` scores in percent and, where it was run, `run` with the number of
            images and scores in [0, 1], and the method's settings.
        exit_status: the highest of all rows; 0 in all ranks but the first.
    """

    table: Table
    model: str
    rows: list[dict[str, Any]]
    exit_status: int


def reproduce(
    config: Config,
    overrides: Mapping[str, Any] | None = None,
    *,
    table: TableName,
    data: str | os.PathLike[str],
    limit: int = 0,
) -> Reproduction:
    """Run and score every row of a table in `out`/TABLE/ROW; the first rank writes metrics.json.

    A stopped run resumes. With a model that ships, Shapes replaces every data set.

    Args:
        config: an experiment file, the name of a shipped one, or an `Experiment`: model, batch sizes and output folder;
            the rows set the rest.
        overrides: settings by dotted name.
        table: the paper and its table, such as `diffsegmenter-1`.
        data: the root folder of the data sets, or the folder of Shapes.
        limit: number of images to take from each data set; 0 takes all.

    Raises:
        UserError: if the data or the model cannot be used; the message gives the fix.
    """
    return run_table(open_experiment(config, overrides), table, os.fspath(data), limit, current_rank())


def run_table(experiment: Experiment, name: TableName, data: str, limit: int, rank: Rank) -> Reproduction:
    """`reproduce` with all settings, in a given rank."""
    table, folder = TABLES[name], Folder(f"{experiment.out}/{name}")
    is_shapes = experiment.model.name in NAMES
    select_data = (select_shapes if is_shapes else select_papers_data)(data, limit)
    check_metrics(folder.path)
    lines, status = [], 0
    for number, row in enumerate(table.rows):
        line: dict[str, Any] = {"row": row.name, "data": row.data, "published": dict(row.published)}
        if row.change is not None and (row.on_shapes or not is_shapes):
            own = replace(row.change(select_data(experiment, row.data)), out=f"{folder.path}/{number:02}")
            own = _with_labels(own, row, folder, rank)
            summary = write_labels(own, rank)
            status = max(status, summary.exit_status if summary else 0)
            if rank.is_main:
                report = _score(own, rank)
                line |= {"run": {"images": report.images, **read_scores(report)}, **_describe_method(own)}
                if report.scope is not None and not report.scope.is_whole:
                    status = FAILED_SAMPLES_EXIT
                    log.warning("%s", "\n".join([f"{row.name} on {row.data}:", *report.scope.lines()]))
                line["data"] = "Shapes" if is_shapes else row.data
        lines.append(line)
    if rank.is_main:
        folder.prepare()
        OwnFiles(folder).write(
            {METRICS: encode_json({"title": table.title, "protocol": table.protocol, "rows": lines})}
        )
    # With another status of other ranks, the launcher would end rank 0 while it scores.
    return Reproduction(table, experiment.model.name, lines, status if rank.is_main else 0)


def _with_labels(experiment: Experiment, row: Row, folder: Folder, rank: Rank) -> Experiment:
    """The experiment with the row's labels and captions; rows with equal settings share them."""
    source = experiment.source
    if row.labels == "predicted":
        shared = f"{folder.path}/classes-{digest([asdict(source), asdict(experiment.filter)])[:8]}"
        write_classes(replace(experiment, out=shared), rank)
        source = replace(source, labels=f"{shared}/filter", unlabelled="background")
    if row.labels == "all":
        source = replace(source, labels=_all_classes(experiment, folder))
    experiment = replace(experiment, source=source)
    if row.captions and experiment.captions.source == "none":
        captions = f"{folder.path}/captions-{digest([asdict(source)])[:8]}"
        experiment = replace(experiment, captions=replace(experiment.captions, source=captions))
        write_captions(experiment, rank)
    elif not row.captions:
        experiment = replace(experiment, captions=replace(experiment.captions, source="none"))
    rank.barrier()
    return experiment


def _all_classes(experiment: Experiment, folder: Folder) -> str:
    """Path of a label file with all classes for every image."""
    vocabulary = load_vocabulary(experiment.vocabulary)
    source = open_source(experiment.source, vocabulary)
    names = list(vocabulary.names[1:])
    file = f"all-{digest([asdict(experiment.source)])[:8]}.json"
    folder.prepare()
    OwnFiles(folder).write({file: json.dumps({entry.key: names for entry in source.entries}).encode()})
    return f"{folder.path}/{file}"


def _describe_method(experiment: Experiment) -> dict[str, Any]:
    method, settings = chosen_method(experiment)
    return {"method": method.name, method.name: asdict(settings)}


def _score(experiment: Experiment, rank: Rank) -> Report | SegmentReport:
    """Score a row once all ranks have written its shards."""
    kind = produced_kind(experiment)
    while not (Folder(experiment.out) / kind).exists(INDEX):
        time.sleep(POLL_SECONDS)
    return evaluate(replace(experiment, evaluate=replace(experiment.evaluate, plots=False)), kind, rank)


def read_scores(report: Report | SegmentReport) -> dict[str, float | None]:
    """A report's scores in [0, 1], by their names in the tables."""
    if isinstance(report, SegmentReport):
        return {
            diffseg.ACCURACY: report.accuracy,
            diffseg.MIOU: report.miou_official,
            diffseg.MATCHED: report.miou_matched,
        }
    if report.oracle is not None and report.fixed is not None:
        return {diffsegmenter.ORACLE: report.oracle.miou, diffsegmenter.FIXED: report.fixed.miou}
    return {
        freesegdiff.PER_IMAGE: report.miou_per_image,
        freesegdiff.MIOU: report.miou,
        freesegdiff.ACCURACY: report.accuracy,
    }


def print_rows(reproduction: Reproduction, console: Console) -> None:
    """Print measured and published scores in percent, side by side."""
    table = reproduction.table
    shown = RichTable(title=Text(f"{table.title}\nmodel {reproduction.model}"), caption=table.protocol)
    for heading in ("method", "data"):
        shown.add_column(heading)
    for score in table.scores:
        shown.add_column(score, justify="right")
        shown.add_column("published", justify="right", style="dim")
    shown.add_column("images", justify="right")
    for line in reproduction.rows:
        run, cells = line.get("run", {}), []
        for score in table.scores:
            cells += [_percent(run.get(score), 100), _percent(line["published"].get(score), 1)]
        name = line["row"] if run else f"{line['row']} (quoted)"
        shown.add_row(name, line["data"], *cells, str(run.get("images", "")))
    console.print(shown)


def _percent(value: float | None, scale: int) -> str:
    return "" if value is None else f"{scale * value:.2f}"
