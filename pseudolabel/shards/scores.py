"""`scores.csv`: what is known of every mask of a folder, one row per image and class."""

import csv
import io
import itertools
import json
import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any, BinaryIO, NamedTuple

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import read_spans
from pseudolabel.records import BACKGROUND
from pseudolabel.runtime.prefetch import map_ahead
from pseudolabel.shards.ledger import LedgerEntry

log = logging.getLogger(__name__)

SCORES = "scores.csv"
_THREADS = 8  # read the JSON members; behind a URL waiting for them is all the time there is
_OF_IMAGE = ("key", "height", "width", "ignored", "image_confidence", "source")
_OF_CLASS = ("class", "name", "confidence", "unsure", "area", "pieces", "border")


def write_scores(folder: Folder, entries: Sequence[LedgerEntry], file: BinaryIO) -> None:
    """Write the table of the shards of a folder, from the JSON members that `judge` filled.

    Columns: `key`, `height`, `width`, `ignored` (share of pixels), `image_confidence` and `source` (`machine`, or
    `human` for a person's mask, whose confidence is 1) of the image, then `class`, `name`, `confidence`, `unsure`,
    `area`, `pieces` and `border` of background and each class; see `pseudolabel.shards.confidence.judge`. Memory does
    not depend on the number of shards.
    """
    file.write(_lines([(*_OF_IMAGE, *_OF_CLASS)]))
    names = [entry.shard for entry in entries]
    with ThreadPoolExecutor(_THREADS) as pool:
        for rows in map_ahead(pool, lambda name: _lines(_rows(folder, name)), names, 2 * _THREADS):
            file.write(rows)


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _rows(folder: Folder, shard: str) -> Iterator[list[Any]]:
    for fields in read_fields(folder, shard):
        if "scores" not in fields:  # written by an earlier version
            continue
        named = dict(zip(fields["classes"], fields["names"], strict=True)) | {BACKGROUND: "background"}
        image = [*(fields[name] for name in ("key", "height", "width", "ignored", "confidence"))]
        image.append(fields.get("source", "machine"))
        for row in fields["scores"]:
            values = row | {"name": named[row["class"]], "border": int(row["border"])}
            yield [*image, *(values[column] for column in _OF_CLASS)]


def read_fields(folder: Folder, shard: str) -> Iterator[dict[str, Any]]:
    """The JSON member of every sample of a shard, in order; images and masks are not read.

    Raises:
        ShardError: if the shard cannot be read.
    """
    try:
        with folder.open(shard) as file:
            for _, spans in read_spans(file):
                file.seek(spans["json"].offset)
                yield json.loads(file.read(spans["json"].length))
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ShardError(f"shard '{folder.path}/{shard}' cannot be read: {error}; run 'pseudolabel verify'") from error


class Confidence(NamedTuple):
    """An image's confidence, in [0, 1]; None where its method gives no probabilities."""

    key: str
    value: float | None


def read_confidences(folder: Folder) -> Iterator[Confidence]:
    """The confidence of each image in a folder of mask shards, in the order of the keys; errors as of `read_scores`."""
    for key, rows in itertools.groupby(read_scores(folder), itemgetter("key")):
        value = next(rows)["image_confidence"]
        yield Confidence(key, float(value) if value else None)


def read_scores(folder: Folder) -> Iterator[dict[str, str]]:
    """The rows of `scores.csv` in a folder of mask shards, by column; see `write_scores`.

    Raises:
        ShardError: if the folder has no `scores.csv`, or it cannot be read.
    """
    try:
        with io.TextIOWrapper(folder.open(SCORES), "utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {*_OF_IMAGE, *_OF_CLASS} <= {*(rows.fieldnames or ())}:
                raise ValueError("columns are missing")
            yield from rows
    except FileNotFoundError as error:
        raise ShardError(
            f"no '{folder.path}/{SCORES}', which says how far each mask can be trusted; run the same 'pseudolabel "
            "refine' or 'generate' again: it is written when the masks are complete"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ShardError(f"'{folder.path}/{SCORES}' cannot be read ({error!r}); remove it and refine again") from error
