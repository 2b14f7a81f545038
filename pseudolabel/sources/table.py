"""Tables: one row per image in CSV, JSON lines or Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pseudolabel.config import SourceConfig
from pseudolabel.io.filesystem import open_filesystem
from pseudolabel.sources.entry import Entry, SourceError, key_of
from pseudolabel.sources.files import Location, join, read_text
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import choose_masks
from pseudolabel.vocabulary import Vocabulary

_REQUIRED = ("image", "labels")
_OPTIONAL = ("key", "mask")
_REQUIRED_SET = set(_REQUIRED)
_MEND = "--source.path needs a table with columns image and labels"


class _Row(NamedTuple):
    """One row as it stands in the table."""

    origin: str
    image: object
    labels: object
    key: object
    mask: object


def list_table(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the rows of a table with the columns `image` and `labels`, and where wanted `key` and `mask`.

    `image` and `mask` are absolute, URLs, or relative to the table's folder. `labels` is a list, or text separated by
    `,` `;` or `|`; blank means that the image has none. `key` names the sample and must be tar-safe; where it is left
    out, the image's path does.

    Raises:
        SourceError: if the file is missing or broken, a column is missing, or a row names no image.
    """
    path = config.path
    folder = path[: path.rfind("/") + 1]
    reader = LabelReader(vocabulary)
    entries: list[Entry] = []
    masks: dict[str, Location] = {}
    for row in _reader_of(path)(path):
        image = _text(row.image, "image", row.origin)
        key = key_of(image) if row.key in (None, "") else _checked_key(str(row.key), row.origin)
        classes, problem = reader.read(row.labels, row.origin)
        entries.append(Entry(key, join(folder, image), classes, row.origin, problem))
        if row.mask not in (None, ""):
            masks[key] = Location(join(folder, _text(row.mask, "mask", row.origin)))
    return Listing(entries, choose_masks(masks, config.masks))


def _reader_of(path: str) -> Callable[[str], Iterator[_Row]]:
    for suffix, reader in _READERS.items():
        if path.lower().endswith(suffix):
            return reader
    raise SourceError(f"'{path}' is no table; {_MEND}, its name ending in {', '.join(_READERS)}")


def _read_csv(path: str) -> Iterator[_Row]:
    rows = csv.reader(io.StringIO(read_text(path, _MEND), newline=""), strict=True)
    try:
        header = next(rows, [])
        places = [header.index(name) if name in header else None for name in _columns(path, header)]
        for row in rows:
            if not row:
                continue
            origin = f"{path} line {rows.line_num}"
            if len(row) != len(header):
                raise SourceError(
                    f"{origin}: {len(row)} cells but {len(header)} columns; put quotes around cells with commas"
                )
            yield _Row(origin, *(None if place is None else row[place] for place in places))
    except csv.Error as error:
        raise SourceError(f"{path} line {rows.line_num}: {error}") from error


def _read_jsonl(path: str) -> Iterator[_Row]:
    # Not splitlines(): JSON strings may hold U+2028, which it takes for the end of a line.
    decode = json.JSONDecoder().decode  # json.loads asks for options a million times
    for number, line in enumerate(read_text(path, _MEND).split("\n"), 1):
        if not line.strip():
            continue
        origin = f"{path} line {number}"
        try:
            row = decode(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{origin}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise SourceError(f"{origin}: a JSON {type(row).__name__} where an object with image and labels is needed")
        if not row.keys() >= _REQUIRED_SET:
            _columns(origin, list(row))
        yield _Row(origin, *map(row.get, _REQUIRED + _OPTIONAL))


def _read_parquet(path: str) -> Iterator[_Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SourceError(f"'{path}': Parquet needs pyarrow: pip install 'pseudolabel[parquet]'") from error
    fs, name = open_filesystem(path)
    number = 0
    try:
        with fs.open(name, "rb") as file:
            table = parquet.ParquetFile(file)
            wanted = [
                column for column in _columns(path, table.schema_arrow.names) if column in table.schema_arrow.names
            ]
            for batch in table.iter_batches(columns=wanted):
                columns = {column: batch.column(column).to_pylist() for column in wanted}
                empty = [None] * batch.num_rows
                for cells in zip(*(columns.get(column, empty) for column in _REQUIRED + _OPTIONAL), strict=True):
                    number += 1
                    yield _Row(f"{path} row {number}", *cells)
    except FileNotFoundError as error:
        raise SourceError(f"no file '{path}'; {_MEND}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"'{path}' is not a readable Parquet file: {error}") from error


_READERS: dict[str, Callable[[str], Iterator[_Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _columns(origin: str, found: list[str]) -> tuple[str, ...]:
    """The columns to read, in the order of `_Row`, once the required ones are there."""
    for name in _REQUIRED:
        if name not in found:
            raise SourceError(f"{origin}: no column '{name}'; found {', '.join(found) or 'none'}; add it or rename one")
    return _REQUIRED + _OPTIONAL


def _text(value: object, column: str, origin: str) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = "nothing" if value in (None, "") else f"{type(value).__name__} {value!r}"[:80]
        raise SourceError(f"{origin}: column '{column}' holds {shown}; it needs a path or URL")
    return value


def _checked_key(key: str, origin: str) -> str:
    """A key the user chose is never changed, since captions and results are looked up by it."""
    if "." in key or "" in key.split("/"):
        raise SourceError(
            f"{origin}: key '{key}' cannot name a tar member; it may hold no dot and no empty folder name"
        )
    return key
