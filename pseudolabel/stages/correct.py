"""The correcting stage: people's masks take the place of the machine's in `OUT/masks`, for good."""

import hashlib
import io
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from pseudolabel.errors import FAILED_SAMPLES_EXIT, OutputError, SampleError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.lock import lock_output
from pseudolabel.io.tar import Members, read_tar, write_tar
from pseudolabel.io.terminal import escaped
from pseudolabel.records import BACKGROUND, IGNORE, Failure, LabelMap
from pseudolabel.shards.classes import class_names
from pseudolabel.shards.confidence import judge
from pseudolabel.shards.corrections import HUMAN, Corrections, corrections_of
from pseudolabel.shards.ledger import INDEX, Ledger, LedgerEntry, entry_name
from pseudolabel.shards.packing import DigestedFile
from pseudolabel.shards.sample import encode_mask
from pseudolabel.shards.scores import read_fields
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.people_masks import PeopleMasks, open_people_masks
from pseudolabel.stages.job import write_index
from pseudolabel.stages.predictions import AMBIGUOUS, match_files
from pseudolabel.vocabulary import Vocabulary, vocabulary_of

KIND = "masks"
UNKNOWN_KEY = "unknown_key"


class Place(NamedTuple):
    """Where a sample is: the number of its unit, and (height, width) of its image."""

    unit: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Corrected:
    """What came of people's masks.

    Attributes:
        out: the folder of mask shards.
        keys: of the masks that are in place now.
        shards: how many shards were written again; none where all masks were in place before.
        refused: masks that were not applied, with reasons; their `key` is the mask's name where no sample has it.
        left_out: what else was found, counted by reason.
    """

    out: str
    keys: tuple[str, ...]
    shards: int
    refused: tuple[Failure, ...]
    left_out: LeftOut

    @property
    def exit_status(self) -> int:
        """0 if all masks were applied and there was at least one, else `FAILED_SAMPLES_EXIT`."""
        return FAILED_SAMPLES_EXIT if self.refused or not self.keys else 0

    def lines(self) -> list[str]:
        """The command's result: the counts."""
        last = f"{len(self.keys):,} masks corrected, {len(self.refused):,} not applied; shards written: {self.shards:,}"
        return [escaped(f"{last} -> {self.out}")]

    def notes(self) -> list[str]:
        """Every mask that was not applied, and what was left out."""
        lines = [escaped(f"{one.key}: {one.status}: {one.message}") for one in self.refused]
        return [*lines, *([escaped(str(self.left_out))] if self.left_out.total else [])]


def correct(out: str | os.PathLike[str], masks: str | os.PathLike[str]) -> Corrected:
    """Put people's masks in the place of the machine's, by key.

    They are kept in `OUT/corrections` and put in place again whenever masks are written to `OUT/masks`. JSON members
    say `source: human` and a confidence of 1. After being killed, the same command goes on, or names the one to run.

    Args:
        out: output folder of a run whose masks are complete.
        masks: a folder of PNGs named as the images or their keys, CVAT's "Segmentation mask 1.1", COCO's JSON, or Label
            Studio's JSON; docs/correct.md.

    Raises:
        ShardError: if the masks are not complete, or do not tell their classes.
        SourceError: if there are no people's masks, or they cannot be read.
        OutputError: if another run is at work there, or a shard was changed by hand.
    """
    folder, masks = Folder(os.fspath(out)) / KIND, os.fspath(masks)
    ledger = Ledger(folder, KIND)
    entries, names = _finished(ledger)
    vocabulary = vocabulary_of(names[1:])
    given = open_people_masks(masks, vocabulary)
    with lock_output(folder, 0):
        places = _places(folder, entries)
        members, refused = _encode(given, places, vocabulary, masks)
        corrections = corrections_of(folder)
        if members:
            corrections.folder.prepare()
            corrections.add(members)
        touched = sorted({places[key].unit for key in members})
        by_unit = {entry.unit: entry for entry in entries}
        for unit in touched:
            _check_unchanged(folder, by_unit[unit])
        written = 0
        for unit in touched:
            now = _apply(ledger, by_unit[unit], corrections, names)
            written += now != by_unit[unit]
            by_unit[unit] = now
        write_index(ledger, list(by_unit.values()), entries[0].fingerprint)
    return Corrected(folder.path, tuple(members), written, tuple(refused), given.left_out)


def _finished(ledger: Ledger) -> tuple[list[LedgerEntry], tuple[str, ...]]:
    """The entries of all units, in order, and the names of the classes by label."""
    folder, settings = ledger.folder, ledger.settings()
    if settings is None or not folder.exists(INDEX):
        raise ShardError(
            f"no complete masks in '{folder.path}'; run 'pseudolabel generate', 'refine' or 'import-masks' with this "
            "`out` to its end first"
        )
    stored = ledger.read(ledger.units())
    entries = [stored[number] for number in sorted(stored) if not stored[number].reopened]
    listed = json.loads(folder.read_bytes(INDEX))["shards"]
    if not entries or {entry.shard for entry in entries} != {shard["shard"] for shard in listed}:
        raise ShardError(
            f"the masks in '{folder.path}' are not complete; run the command that wrote them again. Corrections that "
            "were taken before are put in place by it"
        )
    names = class_names(settings)
    if len(names) < 2:
        raise ShardError(f"the run in '{folder.path}' does not tell its classes, so masks cannot be corrected")
    return entries, names


def _places(folder: Folder, entries: list[LedgerEntry]) -> dict[str, Place]:
    return {
        fields["key"]: Place(entry.unit, (fields["height"], fields["width"]))
        for entry in entries
        for fields in read_fields(folder, entry.shard)
    }


def _encode(
    given: PeopleMasks, places: Mapping[str, Place], vocabulary: Vocabulary, origin: str
) -> tuple[dict[str, Members], list[Failure]]:
    """The members `png` and `json` of the masks that can be applied, by key, and the others with reasons."""
    found, ambiguous = match_files(given.by_name, [Entry(key, f"{key}.png", (), origin) for key in places])
    matched = {*found.values(), *(name for names in ambiguous.values() for name in names)}
    refused = [
        Failure(name, origin, UNKNOWN_KEY, "no sample of this key among the masks")
        for name in given.by_name
        if name not in matched
    ]
    for key, names in ambiguous.items():
        refused.append(Failure(key, origin, AMBIGUOUS, f"it has several masks: {', '.join(names)}"))
    members: dict[str, Members] = {}
    for key, name in sorted(found.items()):
        try:
            members[key] = _members(key, given.by_name[name](places[key].size), vocabulary)
        except SampleError as error:
            refused.append(Failure(key, origin, error.status, str(error)))
    return members, refused


def _members(key: str, labels: np.ndarray, vocabulary: Vocabulary) -> Members:
    """A person's mask counts as certain, so that it is not handed out as one of the least sure again."""
    classes = [int(label) for label in np.unique(labels) if label not in (BACKGROUND, IGNORE)]
    fields = {
        "key": key,
        "classes": classes,
        "names": [vocabulary.names[label] for label in classes],
        "height": labels.shape[0],
        "width": labels.shape[1],
    }
    mask = LabelMap(key, labels, np.ones(labels.shape, np.float32))
    members = encode_mask(b"", mask, {**fields, **judge(mask, classes), "confidence": 1.0, "source": HUMAN})
    return {"png": members["png"], "json": members["json"]}


def _check_unchanged(folder: Folder, entry: LedgerEntry) -> None:
    if hashlib.sha256(folder.read_bytes(entry.shard)).hexdigest() != entry.sha256:
        raise OutputError(
            f"'{folder.path}/{entry.shard}' was changed since it was written, so it is not overwritten; "
            f"'pseudolabel verify {shlex.quote(folder.path)}' lists all such shards"
        )


def _apply(ledger: Ledger, entry: LedgerEntry, corrections: Corrections, names: tuple[str, ...]) -> LedgerEntry:
    """Write a shard again, with the corrections in place, unless they are."""
    folder = ledger.folder
    before = list(read_tar(io.BytesIO(folder.read_bytes(entry.shard))))
    after, count = corrections.apply(before, names)
    if after == before:
        return entry
    # Without an entry the unit is not done, so that a run killed here leaves it to the next one.
    folder.remove(entry_name(ledger.kind, entry.unit))
    with folder.write(entry.shard) as file:
        shard = DigestedFile(file)
        write_tar(cast(BinaryIO, shard), after)
    now = replace(entry, size=shard.size, sha256=shard.sha256, corrected=count)
    ledger.write(now)
    return now
