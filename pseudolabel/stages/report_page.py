"""`pseudolabel report`: what a run did, which masks to trust, and a gallery, as one HTML page."""

import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pseudolabel.config import Experiment, SourceConfig
from pseudolabel.errors import SettingError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.io.metrics import METRICS
from pseudolabel.io.names import printable
from pseudolabel.io.ownership import own_files_beside
from pseudolabel.io.tar import Members
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.classes import read_run, recorded_classes
from pseudolabel.shards.failures import find_failures
from pseudolabel.shards.order import choose_keys
from pseudolabel.shards.others import SUMMARY
from pseudolabel.shards.sample import decode_cams
from pseudolabel.shards.scores import SCORES, read_scores
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.sheet import samples_of, shards_of, truth_of
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.views.report_page import Page, Picture, Table, file_uri, labels_uri, photo_uri, render, scores_uri
from pseudolabel.vocabulary import Vocabulary, vocabulary_of

OPTION = "`out_file`"
BINS = 20
_ANY_SIZE = np.iinfo(np.int64).max
_PLOTS = ("cams-threshold.png", "cams-iou.png", "masks-iou.png", "cams-confusion.png", "masks-confusion.png")
_SCORES = {"miou": "mIoU", "miou_covered": "mIoU, covered pixels", "miou_per_image": "mIoU, mean over the images"}
_SUMMARY = ("samples", "shards", "seconds", "samples_per_second")
_FIRST_FAILURES = 5


@dataclass(frozen=True)
class Trust:
    """What `scores.csv` says: of every image its confidence and origin, of every class what it covers."""

    confidences: Mapping[str, float | None] = field(default_factory=dict)
    corrected: frozenset[str] = frozenset()
    classes: Table | None = None


def report(
    out: str | os.PathLike[str],
    out_file: str = "",
    images: int = 300,
    experiment: Experiment | None = None,
) -> str:
    """Write a self-contained HTML page about a run; docs/report.md describes it.

    Args:
        out: the output folder of `generate`, `cams` or `refine`.
        out_file: the page, by default `out`/report.html.
        images: number of samples in the gallery: a third each of the least confident, the most confident and random
            ones; all where there are no more.
        experiment: its source gives the ground truth, its evaluation the threshold at which the slider begins.

    Returns:
        The path of the page.

    Raises:
        SettingError: if `images` is below 1, or `out_file` names a folder.
        ShardError: if there are no CAM or mask shards with class names.
        NotOursError: if the page exists and this package did not write it.
    """
    if images < 1:
        raise SettingError(f"`images` {images}: give at least 1")
    experiment = replace(experiment or Experiment(source=SourceConfig()), out=os.fspath(out).rstrip("/"))
    target = out_file or f"{experiment.out}/report.html"
    files, name = own_files_beside(os.path.expanduser(target), OPTION)
    if not name:
        raise SettingError(f"{OPTION} '{target}' names a folder; give the page to write, such as '{target}report.html'")
    files.check([name])
    page = _page(experiment, images)
    files.folder.prepare()
    files.write({name: render(page)})
    return target


def _page(experiment: Experiment, images: int) -> Page:
    folder = Folder(experiment.out)
    kinds = [kind for kind in ("cams", "masks") if shards_of(experiment, kind)]
    names = next((found.names for kind in kinds for found in recorded_classes(folder / kind)), ())
    if not kinds or not names:
        raise ShardError(f"no CAMs or masks in '{experiment.out}'; give the output folder of generate, cams or refine")
    trust = _trust(folder / "masks")
    keys, note = _choose(experiment, kinds[-1], trust, images)
    tables = [*_run_tables(folder, kinds), *_score_tables(folder), *_failure_tables(folder)]
    if trust.corrected:
        tables.append(Table("Corrections", (), [["masks corrected by people", f"{len(trust.corrected):,}"]]))
    tables += [trust.classes] if trust.classes is not None else []
    bins, span = _histogram([value for value in trust.confidences.values() if value is not None])
    return Page(
        title=f"pseudolabel: {printable(experiment.out)}",
        tables=tables,
        bins=bins,
        span=span,
        plots=[(plot, file_uri(folder.read_bytes(plot))) for plot in _PLOTS if folder.exists(plot)],
        names=names,
        threshold=experiment.evaluate.threshold,
        pictures=list(_pictures(experiment, kinds, keys, trust, _truths(experiment, names))),
        note=note,
    )


def _histogram(confidences: Sequence[float]) -> tuple[list[int], tuple[float, float]]:
    """The counts of equal steps over the tenths that hold all confidences, and where these begin and end."""
    if not confidences:
        return [], (0.0, 1.0)
    low, high = int(min(confidences) * 10) / 10, math.ceil(max(confidences) * 10) / 10
    span = (min(low, 0.9), max(high, low + 0.1))
    return np.histogram(confidences, BINS, span)[0].tolist(), span


def _run_tables(folder: Folder, kinds: Sequence[str]) -> Iterator[Table]:
    for kind in kinds:
        run = read_run(folder / kind)
        summary = json.loads((folder / kind).read_bytes(SUMMARY)) if (folder / kind).exists(SUMMARY) else {}
        rows = [[name.replace("_", " "), _text(summary[name])] for name in _SUMMARY if summary]
        rows += [[status, _text(number)] for status, number in summary.get("statuses", {}).items()]
        rows += [[f"left out: {reason}", _text(number)] for reason, number in summary.get("left_out", {}).items()]
        yield Table(f"{kind}: counts and time", (), rows or [["not complete", ""]])
        settings = run.get("settings", {})
        if kind == "masks":
            settings = {name: value for name, value in settings.items() if name != "cams"}
        rows = [["fingerprint", str(run.get("fingerprint", ""))], *_flat(run.get("about", {})), *_flat(settings)]
        yield Table(f"{kind}: settings", (), rows, is_folded=True)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", _text(value)]


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _failure_tables(folder: Folder) -> Iterator[Table]:
    found = find_failures(folder)
    statuses = Counter(failure.status for _, failure in found)
    for status, number in statuses.most_common():
        first = [failure for _, failure in found if failure.status == status][:_FIRST_FAILURES]
        rows = [[printable(failure.key), printable(failure.message)] for failure in first]
        yield Table(f"Not in the shards: {number:,} {status}", ["key", "reason"], rows)


def _score_tables(folder: Folder) -> Iterator[Table]:
    metrics = json.loads(folder.read_bytes(METRICS)) if folder.exists(METRICS) else {}
    for kind in ("cams", "masks"):
        scores = metrics.get(kind)
        if not scores:
            continue
        rows = [[label, f"{100 * scores[name]:.1f}"] for name, label in _SCORES.items() if scores.get(name) is not None]
        points = {name: scores[name] for name in ("fixed", "oracle") if scores.get(name)}
        rows += [
            [f"mIoU at the {name} threshold {point['threshold']:.2f}", f"{100 * point['miou']:.1f}"]
            for name, point in points.items()
        ]
        yield Table(f"Scores of {kind} in % ({scores['split']}, {scores['images']:,} images)", (), rows)


def _trust(masks: Folder) -> Trust:
    """Of folders without `scores.csv`, nothing."""
    if not masks.exists(SCORES):
        return Trust()
    confidences: dict[str, float | None] = {}
    corrected: set[str] = set()
    sums: dict[str, np.ndarray] = {}
    pixels = 0
    for row in read_scores(masks):
        if row["key"] not in confidences:
            confidences[row["key"]] = float(row["image_confidence"]) if row["image_confidence"] else None
            pixels += int(row["height"]) * int(row["width"])
            if row["source"] == "human":
                corrected.add(row["key"])
        area, sure = int(row["area"]), row["confidence"]
        one = [area > 0, area, float(sure or 0), bool(sure), int(row["pieces"])]
        sums[row["name"]] = sums.get(row["name"], np.zeros(5)) + one
    return Trust(confidences, frozenset(corrected), _class_table(sums, pixels) if sums else None)


def _class_table(sums: Mapping[str, np.ndarray], pixels: int) -> Table:
    """A row for each class from its sums of images, area, confidence, known confidences and pieces."""
    heads = ["class", "images", "share of pixels", "mean confidence", "pieces per image"]
    rows = [
        [
            printable(name),
            f"{int(images):,}",
            f"{area / max(pixels, 1):.2%}",
            f"{total / count:.3f}" if count else "",
            f"{pieces / images:.1f}" if images else "",
        ]
        for name, (images, area, total, count, pieces) in sums.items()
    ]
    values = np.array(list(sums.values()))
    is_class = np.array([name != "background" for name in sums])  # beside it the others would look alike
    most = np.maximum(values[is_class].max(0, initial=0), 1)
    sure = values[:, 2] / np.maximum(values[:, 3], 1)
    columns = {1: np.minimum(values[:, 0] / most[0], 1), 2: np.minimum(values[:, 1] / most[1], 1), 3: sure}
    bars = {column: lengths.tolist() for column, lengths in columns.items()}
    return Table("Classes in the masks", heads, rows, bars=bars)


def _choose(experiment: Experiment, kind: str, trust: Trust, images: int) -> tuple[frozenset[str], str]:
    """The keys of the gallery, and how they were chosen."""
    known = [key for key, value in trust.confidences.items() if value is not None]
    if not known:
        keys = [key for key, _ in samples_of(experiment, kind)] if not trust.confidences else list(trust.confidences)
        chosen = keys if len(keys) <= images else random.Random(0).sample(keys, images)
        return frozenset(chosen), f"{len(chosen):,} of {len(keys):,} samples; the masks have no confidence."
    total = len(trust.confidences)
    if total <= images:
        return frozenset(trust.confidences), f"All {total:,} samples."
    masks = Folder(experiment.out) / "masks"
    extremes = max(1, images // 3)
    chosen = [*choose_keys(masks, extremes, "worst"), *choose_keys(masks, extremes, "best")][:images]
    others = sorted({*known} - {*chosen})
    chosen += random.Random(0).sample(others, min(images - len({*chosen}), len(others)))
    extreme = f"the {extremes:,} least confident, the {extremes:,} most confident"
    return frozenset(chosen), f"{len({*chosen}):,} of {total:,} samples: {extreme}, and random ones."


@dataclass(frozen=True)
class Truths:
    """The ground truth of a source's images, by key."""

    source: Source
    entries: Mapping[str, Entry]

    def uri(self, key: str, size: tuple[int, int]) -> str:
        labels = truth_of(self.source, self.entries[key], size) if key in self.entries else None
        return "" if labels is None else labels_uri(labels)


def _truths(experiment: Experiment, names: Sequence[str]) -> Truths | None:
    if not experiment.source.path:
        return None
    source = open_source(replace(experiment.source, labels="none"), _vocabulary(experiment, names))
    return Truths(source, {entry.key: entry for entry in source.entries}) if source.has_ground_truth else None


def _vocabulary(experiment: Experiment, names: Sequence[str]) -> Vocabulary:
    chosen = choose_vocabulary(experiment)
    return chosen if chosen.names == tuple(names) else vocabulary_of(names[1:])


def _pictures(
    experiment: Experiment, kinds: Sequence[str], keys: frozenset[str], trust: Trust, truths: Truths | None
) -> Iterator[Picture]:
    masks = samples_of(experiment, "masks") if kinds != ["cams"] else iter(())
    mask = next(masks, None)
    for key, members in samples_of(experiment, kinds[0]):
        if key not in keys:
            continue
        while mask is not None and kinds[0] == "cams" and mask[0] < key:  # both are sorted by key
            mask = next(masks, None)
        own = members if kinds == ["masks"] else mask[1] if mask is not None and mask[0] == key else None
        yield _picture(key, members, own, trust, truths)


def _picture(key: str, members: Members, mask: Members | None, trust: Trust, truths: Truths | None) -> Picture:
    image = decode_image(members["jpg"], key, _ANY_SIZE)[0]
    size = image.size[::-1]
    maps: list[str] = []
    classes: Sequence[int] = json.loads(members["json"]).get("classes", [])
    if "cam.npz" in members:
        scores = decode_cams(key, members).scores
        classes = scores.classes
        maps = [scores_uri(own) for own in at_image_size(scores.maps, scores.size, scores.final)]
    return Picture(
        key=printable(key),
        classes=[int(label) for label in classes],
        image=photo_uri(image),
        maps=maps,
        mask="" if mask is None else labels_uri(read_mask(mask["png"], key)),
        truth="" if truths is None else truths.uri(key, size),
        confidence=trust.confidences.get(key),
        source="human" if key in trust.corrected else "machine",
    )
