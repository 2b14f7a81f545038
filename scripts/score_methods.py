"""Score every method and every setting of the category filter on held-out Shapes, in one table.

Runs the real commands one after the other, and writes `methods.json` beside the small models of the text side.

    python scripts/score_methods.py
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_shapes import IMAGES, SEED

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import clear_folder
from pseudolabel.io.ownership import own_files_beside, write_own

TARGET = Path("pseudolabel/shapes/models/shapes-text/methods.json")
T_100 = ("--diffsegmenter.timesteps", "[100]")
FILTERS: dict[str, tuple[str, ...]] = {
    "image": ("--filter.nouns", "none"),
    "nouns": ("--filter.image", "none"),
    "synonyms": ("--filter.image", "none", "--filter.nouns", "synonyms"),
    "image + nouns": (),
    "image + synonyms": ("--filter.nouns", "synonyms"),
    "nearest (FreeSeg-Diff)": ("--filter.image", "none", "--filter.nouns", "nearest"),
    "mean of minima (FreeSeg-Diff)": ("--filter.image", "none", "--filter.nouns", "mean_of_minima"),
}


@dataclass(frozen=True)
class Run:
    """A line of the table: what is written (`cams`, `masks` or `segments`), with which classes and options.

    `options` are those of the command that writes it, `scoring` are those of `evaluate`.
    """

    name: str
    kind: str
    classes: str = "true"
    options: tuple[str, ...] = ()
    scoring: tuple[str, ...] = ()


def runs() -> list[Run]:
    diffseg, freeseg = ("--method", "diffseg"), ("--method", "freesegdiff")
    kmeans = (*diffseg, "--diffseg.grouping", "kmeans")
    elbo, threshold = ("--method", "elbo"), ("--evaluate.threshold", "0.54")
    return [
        Run("DiffSegmenter, weakly supervised", "cams"),
        Run("DiffSegmenter, weakly supervised, t = 100", "cams", options=T_100),
        *(Run("DiffSegmenter, zero-shot, t = 100", "cams", classes, T_100) for classes in FILTERS),
        Run("ELBO baseline", "cams", options=elbo, scoring=threshold),
        Run("FreeSeg-Diff", "masks", options=freeseg),
        Run("FreeSeg-Diff", "masks", "nearest (FreeSeg-Diff)", freeseg),
        Run("FreeSeg-Diff", "masks", "image + nouns", freeseg),
        Run("Semantic DiffSeg", "masks", options=(*diffseg, "--diffseg.semantic", "true")),
        Run("DiffSeg", "segments", options=diffseg),
        Run("K-Means-C (6)", "segments", options=kmeans),
        Run("K-Means-S", "segments", options=(*kmeans, "--diffseg.clusters", "0")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/score_methods"))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    try:
        clear_folder(arguments.out, "score_methods.py")
        check_target(arguments.target)
    except OutputError as error:
        parser.error(str(error))
    data = arguments.out / "data"
    run("shapes", "--out", data, "--train", 0, "--val", arguments.images, "--seed", SEED)
    experiment = ["--config", "configs/pipeline/shapes.yaml", "--source.path", data]
    filters = {name: guess(name, options, experiment, arguments.out) for name, options in FILTERS.items()}
    lines = [score(line, experiment, arguments.out / f"{number:02}") for number, line in enumerate(runs())]
    scores = {"data": {"source": "shapes", "seed": SEED, "images": arguments.images}, "filters": filters, "runs": lines}
    text = json.dumps(scores, indent=2) + "\n"
    if arguments.target == TARGET:
        TARGET.write_text(text)
    else:
        write_own(str(arguments.target), text.encode(), "--target")
    print(table(scores))


def check_target(target: Path) -> None:
    """The file that ships is made by this script; any other that is there must be."""
    if target != TARGET:
        files, name = own_files_beside(str(target), "--target")
        files.check([name])


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "pseudolabel", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def guess(name: str, options: tuple[str, ...], experiment: list[Any], out: Path) -> dict[str, Any]:
    """Predict the classes of all images with one setting; gives precision, recall and F1 of the union."""
    own = folder_of(name, out)
    run("filter", *experiment, "--out", own, *options)
    return json.loads((own / "metrics.json").read_text())["filter"]


def folder_of(name: str, out: Path) -> Path:
    return out / f"filter-{list(FILTERS).index(name)}"


def score(line: Run, experiment: list[Any], out: Path) -> dict[str, Any]:
    options = [*experiment, "--out", out]
    if line.classes != "true":
        labels = folder_of(line.classes, out.parent) / "filter"
        options += ["--source.labels", labels, "--source.unlabelled", "background"]
    printed = run("cams" if line.kind == "cams" else "generate", *options, *line.options)
    summary = next(json.loads(text) for text in printed.splitlines() if text.startswith("{"))
    run("evaluate", line.kind, *options, *line.scoring)
    metrics = json.loads((out / "metrics.json").read_text())[line.kind]
    metrics.pop("curve", None)
    seconds = round(summary["seconds"] / max(1, summary["samples"]), 3)
    return {"name": line.name, "kind": line.kind, "classes": line.classes, "seconds": seconds, "metrics": metrics}


def table(scores: dict[str, Any]) -> str:
    """The lines for docs/reproduce.md, all figures in per cent."""
    lines = ["| filter | precision | recall | F1 |", "|---|---:|---:|---:|"]
    for name, measured in scores["filters"].items():
        union = measured["union"]
        lines.append(f"| {name} | " + " | ".join(percent(union[key]) for key in ("precision", "recall", "f1")) + " |")
    lines += ["", "| method | classes | score | mIoU | s per image |", "|---|---|---|---:|---:|"]
    for line in scores["runs"]:
        for score, value in headline(line["kind"], line["metrics"]).items():
            lines.append(f"| {line['name']} | {line['classes']} | {score} | {percent(value)} | {line['seconds']:.2f} |")
    return "\n".join(lines)


def headline(kind: str, metrics: dict[str, Any]) -> dict[str, float]:
    if kind == "cams":
        oracle, fixed = metrics["oracle"], metrics["fixed"]
        return {f"CAM, threshold {fixed['threshold']:.2f}": fixed["miou"], "CAM, oracle threshold": oracle["miou"]}
    if kind == "masks":
        return {"mask": metrics["miou"], "mask, per image": metrics["miou_per_image"]}
    return {"segments, matched": metrics["miou_matched"], "segments, official": metrics["miou_official"]}


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


if __name__ == "__main__":
    main()
