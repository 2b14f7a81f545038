"""A contact sheet of what a run has written: image, ground truth, CAM, pseudo-mask."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.config import Experiment
from pseudolabel.errors import UserError
from pseudolabel.methods.score_maps import at_image_size
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.sample import CamSample, decode_cams
from pseudolabel.shards.tar import Members, read_tar
from pseudolabel.sources.entry import BadSample, Entry
from pseudolabel.sources.images import read_mask
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.views.contact_sheet import ContactRow, contact_sheet


def draw_sheet(experiment: Experiment, out: Path, rows: int, title: str) -> None:
    """Draw the first samples of the CAM shards, with masks and ground truth where there are any.

    Raises:
        UserError: if there are no CAM shards.
    """
    vocabulary = choose_vocabulary(experiment)
    source = open_source(replace(experiment.source, labels="none"), vocabulary)
    entries = {entry.key: entry for entry in source.entries}
    masks = _samples(experiment, "masks")
    drawn: list[ContactRow] = []
    mask = next(masks, None)
    for key, members in _samples(experiment, "cams"):
        if len(drawn) == rows:
            break
        while mask is not None and mask[0] < key:
            mask = next(masks, None)
        labels = read_mask(mask[1]["png"], key) if mask is not None and mask[0] == key else None
        drawn.append(_row(key, decode_cams(key, members), labels, source, entries.get(key)))
    if not drawn:
        raise UserError(f"no CAM shards in '{experiment.out}/cams'; run 'pseudolabel cams' with this --out first")
    contact_sheet(_consistent(drawn), vocabulary, out, title)


def _samples(experiment: Experiment, kind: str) -> Iterator[tuple[str, Members]]:
    folder = Folder(f"{experiment.out}/{kind}")
    for name in folder.names():
        if name.endswith(".tar"):
            with folder.open(name) as file:
                yield from read_tar(file)


def _row(key: str, sample: CamSample, labels: np.ndarray | None, source: Source, entry: Entry | None) -> ContactRow:
    image = np.asarray(Image.open(io.BytesIO(sample.jpeg)).convert("RGB"))
    truth = _truth(source, entry, sample.scores.size) if entry is not None else None
    scores = at_image_size(sample.scores.maps, sample.scores.size)
    return ContactRow(key, image, sample.scores.classes, scores, labels, truth)


def _truth(source: Source, entry: Entry, size: tuple[int, int]) -> np.ndarray | None:
    try:
        truth = source.ground_truth(entry, size)
    except BadSample:
        return None
    return truth.labels if truth is not None else None


def _consistent(rows: list[ContactRow]) -> list[ContactRow]:
    """Drop the ground truth of all rows where only some have it, so that columns line up."""
    return rows if all(row.truth is not None for row in rows) else [replace(row, truth=None) for row in rows]
