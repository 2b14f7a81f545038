"""A contact sheet of a run: image, ground truth, CAM, pseudo-mask or segments in a row per sample."""

import io
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pseudolabel.config import Experiment
from pseudolabel.errors import SampleError, SettingError, UserError
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.io.ownership import own_files_beside
from pseudolabel.io.tar import Members, read_tar
from pseudolabel.records import IGNORE, Order
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.order import choose_keys
from pseudolabel.shards.sample import decode_cams
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.views.contact_sheet import ContactRow, contact_sheet
from pseudolabel.vocabulary import Vocabulary

log = logging.getLogger(__name__)

KINDS = ("cams", "masks", "segments")
OPTION = "`out_file`"


def draw_sheet(
    experiment: Experiment, out: str, rows: int, title: str, order: Order = "first", only: Sequence[str] = ()
) -> None:
    """Draw samples of the CAM shards, with their masks where there are any, or of the masks or segments.

    Args:
        experiment: the run; its output folder holds the shards, its source the ground truth.
        out: the PNG to write.
        rows: number of samples.
        title: title of the sheet.
        order: which samples: the first ones, those of least confidence (`worst`) or most (`best`), or `random` ones,
            always the same.
        only: keys of the samples to draw, instead; then `rows` and `order` do not count.

    Raises:
        UserError: if there are no shards, or they are of another vocabulary, or have none of the keys.
        ShardError: if `order` needs confidences, and the masks have none.
        NotOursError: if `out` exists and this package did not write it.
    """
    if rows < 1:
        raise SettingError(f"`rows` {rows}: give at least 1")
    files, name = own_files_beside(os.path.expanduser(out), OPTION)
    if not name:
        raise SettingError(f"{OPTION} '{out}' names a folder; give the PNG to write, such as '{out}sheet.png'")
    files.check([name])
    vocabulary = choose_vocabulary(experiment)
    kind = next((kind for kind in KINDS if shards_of(experiment, kind)), None)
    if kind is None:
        raise UserError(
            f"no shards of {', '.join(KINDS)} in '{experiment.out}'; run 'pseudolabel generate' with this `out` first"
        )
    source = open_source(replace(experiment.source, labels="none"), vocabulary)
    keys = only or choose_keys(Folder(experiment.out) / "masks", rows, order)
    drawn = _draw_rows(experiment, kind, source, rows, keys)
    _check_labels(drawn, vocabulary, experiment)
    sheet = io.BytesIO()
    contact_sheet(_consistent(drawn), vocabulary, sheet, title)
    files.folder.prepare()
    files.write({name: sheet.getvalue()})


def _draw_rows(experiment: Experiment, kind: str, source: Source, rows: int, keys: Sequence[str]) -> list[ContactRow]:
    """The rows of these keys in their order; without keys, of the first samples."""
    wanted, rows = frozenset(keys), len(keys) or rows
    entries = {entry.key: entry for entry in source.entries}
    masks = samples_of(experiment, "masks") if kind == "cams" else iter(())
    mask = next(masks, None)
    drawn: list[ContactRow] = []
    for key, members in samples_of(experiment, kind):
        if len(drawn) == rows:
            break
        if keys and key not in wanted:
            continue
        while mask is not None and mask[0] < key:  # both are sorted by key
            mask = next(masks, None)
        own = mask[1] if mask is not None and mask[0] == key else None
        try:
            drawn.append(_row(key, kind, members, own, source, entries.get(key)))
        except (SampleError, KeyError) as error:
            log.warning("left out of the sheet: '%s': %s", key, error)
    missing = ", ".join(sorted(wanted - {row.key for row in drawn}))
    if not drawn:
        named = f" and is named {missing}" if missing else ""
        raise UserError(f"no sample of '{experiment.out}/{kind}' can be drawn{named}; run 'pseudolabel verify' on it")
    if missing:
        log.warning("not in '%s/%s', or not readable: %s", experiment.out, kind, missing)
    if keys:
        drawn.sort(key=lambda row: keys.index(row.key))
    if kind == "cams" and all(row.mask is None for row in drawn):
        log.info("no masks in '%s/masks'; 'pseudolabel refine' writes them", experiment.out)
    return drawn


def shards_of(experiment: Experiment, kind: str) -> list[str]:
    """Names of a run's shards of one kind."""
    return [name for name in Folder(f"{experiment.out}/{kind}").names() if name.endswith(".tar")]


def samples_of(experiment: Experiment, kind: str) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample of a run's shards of one kind, in the order of the keys.

    Raises:
        UserError: if a shard cannot be read.
    """
    folder = Folder(f"{experiment.out}/{kind}")
    for name in shards_of(experiment, kind):
        try:
            with folder.open(name) as file:
                yield from read_tar(file)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(
                f"shard '{folder.path}/{name}' cannot be read: {error}; run 'pseudolabel verify'"
            ) from error


def _row(
    key: str, kind: str, members: Members, mask: Members | None, source: Source, entry: Entry | None
) -> ContactRow:
    image = np.asarray(decode_image(members["jpg"], key, np.iinfo(np.int64).max)[0])
    truth = truth_of(source, entry, image.shape[:2]) if entry is not None else None
    if kind == "cams":
        scores = decode_cams(key, members).scores
        labels = read_mask(mask["png"], key) if mask is not None else None
        maps = at_image_size(scores.maps, scores.size, scores.final)
        return ContactRow(key, image, scores.classes, maps, labels, truth)
    labels = read_mask(members["png"], key)
    if kind == "segments":
        return ContactRow(key, image, (), segments=labels, truth=truth)
    return ContactRow(key, image, (), mask=labels, truth=truth)


def truth_of(source: Source, entry: Entry, size: tuple[int, int]) -> np.ndarray | None:
    """uint8 (H, W) ground truth of an image of this size; None where there is none that can be read."""
    try:
        truth = source.ground_truth(entry, size)
    except SampleError:
        return None
    return truth.labels if truth is not None else None


def _check_labels(rows: list[ContactRow], vocabulary: Vocabulary, experiment: Experiment) -> None:
    found = {label for row in rows for label in row.classes}
    masks = [labels for row in rows for labels in (row.mask, row.truth) if labels is not None]
    found |= {int(label) for labels in masks for label in np.unique(labels)}
    if (largest := max(found - {IGNORE}, default=0)) > len(vocabulary):
        raise SettingError(
            f"masks of '{experiment.out}' or its ground truth hold label {largest}, but vocabulary "
            f"'{vocabulary.name}' has {len(vocabulary)} classes; give the run's own `vocabulary`"
        )


def _consistent(rows: list[ContactRow]) -> list[ContactRow]:
    """Drop the ground truth if a row lacks it, so that all rows have the same columns."""
    return rows if all(row.truth is not None for row in rows) else [replace(row, truth=None) for row in rows]
