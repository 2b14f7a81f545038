"""The rows of a table file: CSV, JSON lines or Parquet."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pseudolabel.errors import ParquetError, SourceError
from pseudolabel.io.files import read_text
from pseudolabel.io.jsonl import read_file
from pseudolabel.io.parquet import Cell, ParquetTable
from pseudolabel.sources.columns import Columns

_HINT = "`source.path` needs a table with columns image and labels"
_DELIMITERS = (",", ";", "\t", "|")
_NO_LABEL = -1  # in the integers of Hugging Face's ClassLabel


class Embedded(NamedTuple):
    """An image or mask whose bytes are in the table.

    Attributes:
        name: of its file, no other row's in the table; made from the row's number where names are missing or repeat.
        cell: where the bytes are.
    """

    name: str
    cell: Cell


class Row(NamedTuple):
    """One row; a part without a column is None."""

    origin: str
    image: object
    labels: object
    key: object
    mask: object


def read_rows(path: str, columns: Columns) -> Iterator[Row]:
    """Read a table's rows in their order.

    Args:
        path: local path or fsspec URL; its suffix tells the format.
        columns: chooses the columns.

    Raises:
        SourceError: if the file is missing, broken, of another format, or lacks a column.
    """
    for suffix, reader in _READERS.items():
        if path.lower().endswith(suffix):
            return reader(path, columns)
    raise SourceError(f"'{path}' is no table; {_HINT}, its name ending in {', '.join(_READERS)}")


def _read_csv(path: str, columns: Columns) -> Iterator[Row]:
    text = read_text(path, _HINT)
    delimiter, spaced = _dialect(text, columns)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True)
    try:
        header = next(rows, [])
        chosen = columns.find(header, path)
        places = {part: header.index(column) for part, column in chosen.items()}
        for row in rows:
            if not row:
                continue
            origin = f"{path} line {rows.line_num}"
            if len(row) != len(header):
                raise SourceError(
                    f"{origin}: {len(row)} cells but {len(header)} columns; put quotes around cells that hold "
                    f"'{delimiter}'"
                )
            yield Row(origin, *(row[places[part]] if part in places else None for part in Row._fields[1:]))
    except csv.Error as error:
        raise SourceError(f"{path} line {rows.line_num}: {error}") from error


def _dialect(text: str, columns: Columns) -> tuple[str, bool]:
    """What separates the cells, the first character that gives the header a column of images; do blanks follow it?"""
    line = text.partition("\n")[0].strip("\r")
    for delimiter in _DELIMITERS:
        try:
            header = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        if columns.fit(header):
            return delimiter, f"{delimiter} " in line
    return ",", False


def _read_jsonl(path: str, columns: Columns) -> Iterator[Row]:
    fields: tuple[str, ...] = ()
    chosen: list[str | None] = []
    for origin, row in read_file(path, "row of images and labels", _HINT):
        if tuple(row) != fields or not chosen:
            fields, found = tuple(row), columns.find(list(row), origin)
            chosen = [found.get(part) for part in Row._fields[1:]]
        yield Row(origin, *(None if field is None else row[field] for field in chosen))


def _read_parquet(path: str, columns: Columns) -> Iterator[Row]:
    try:
        table = ParquetTable(path)
        types = table.types()
        chosen = columns.find([name for name in types if "." not in name], path)
        if "labels" in chosen and types[chosen["labels"]] in ("struct", "binary", "large_binary"):
            raise SourceError(
                f"{path}: column '{chosen['labels']}' holds {types[chosen['labels']]} values, no labels; name the "
                "labels' column with `source.columns` labels=COLUMN, or take them from elsewhere"
            )
        parts = {part: _values_of(table, types, part, column) for part, column in chosen.items()}
        none: Iterator[Any] = iter(lambda: None, 0)
        values = zip(*(parts.get(part, none) for part in Row._fields[1:]), strict=False)
        for number, cells in enumerate(values, 1):
            yield Row(f"{path} row {number}", *cells)
    except FileNotFoundError as error:
        raise SourceError(f"no file '{path}'; {_HINT}") from error
    except ParquetError as error:
        raise SourceError(str(error)) from error


def _values_of(table: ParquetTable, types: dict[str, str], part: str, column: str) -> Iterator[Any]:
    """A column's values; of images and masks whose bytes are in the file, where they are."""
    if part == "labels":
        names = table.class_names(column)
        return (value if names is None else _named(value, names) for (value,) in table.rows([column]))
    path, data = f"{column}.path", f"{column}.bytes"
    if types[column] == "struct" and data in types and not table.is_empty(data):
        names = [name for (name,) in table.rows([path])] if path in types else None
        return _embedded(table, names, data)
    if types[column] in ("binary", "large_binary"):
        return _embedded(table, None, column)
    return (value for (value,) in table.rows([path if path in types else column]))


def _embedded(table: ParquetTable, names: list[Any] | None, column: str) -> Iterator[Embedded]:
    count = table.count
    stems = Counter(str(name).replace("\\", "/").rpartition(".")[0] for name in names or ())
    if names is None or not all(names) or len(stems) < count:
        names = [f"row-{number:08d}" for number in range(1, count + 1)]
    return (Embedded(str(name), Cell(row, column)) for row, name in enumerate(names))


def _named(value: Any, names: list[str]) -> Any:
    """Labels by name where they are integers of a ClassLabel, of which -1 is none."""
    if isinstance(value, list):
        return [_named(label, names) for label in value if label != _NO_LABEL]
    if not isinstance(value, int):
        return value
    return None if value == _NO_LABEL else names[value] if 0 <= value < len(names) else value


_READERS: dict[str, Callable[[str, Columns], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
