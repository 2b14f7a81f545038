"""Parquet files: read small columns row by row, and large values cell by cell.

Memory depends on the size of the file's pages, which are decoded one at a time, not on its length. Pages of Hugging
Face's files hold a hundred rows; those of other writers may hold a thousand.
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from pseudolabel.errors import ParquetError
from pseudolabel.io.filesystem import open_filesystem

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

_ROWS, _KEPT = 32, 8  # rows per batch of large values; batches kept for threads that are slightly behind
_BUFFER = 1 << 20  # bytes; without it a column chunk is read at once
_OPEN_FILES = 16


class Cell(NamedTuple):
    """A value of a Parquet file: its row, counted from 0, and its column, such as `image.bytes`."""

    row: int
    column: str


class ParquetTable:
    """An open Parquet file.

    Args:
        path: local path or fsspec URL.

    Raises:
        FileNotFoundError: if there is no such file.
        ParquetError: if it is not Parquet, or pyarrow is not installed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ParquetError(f"'{path}': Parquet needs pyarrow: pip install 'pseudolabel[parquet]'") from error
        self._errors = (pyarrow.ArrowException, OSError)
        fs, name = open_filesystem(path)
        file = fs.open(name, "rb")
        try:
            self._file: ParquetFile = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        except self._errors as error:
            raise ParquetError(f"'{path}' is not a readable Parquet file: {error}") from error
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._ends = list(accumulate(counts))
        self._lock = threading.Lock()
        self._column = ""
        self._batches: Iterator[tuple[int, RecordBatch]] = iter(())
        self._recent: list[tuple[int, RecordBatch]] = []

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._ends[-1] if self._ends else 0

    def types(self) -> dict[str, str]:
        """Type of every column by name, such as `struct` or `binary`; fields of a struct as well, as `image.bytes`."""
        found = {}
        for field in self._file.schema_arrow:
            found[field.name] = str(field.type).partition("<")[0]
            if found[field.name] == "struct":
                found |= {f"{field.name}.{inner.name}": str(inner.type) for inner in field.type}
        return found

    def is_empty(self, column: str) -> bool:
        """Whether all values of a column are null, according to the file's statistics."""
        columns = self._file.metadata.row_group(0).num_columns if self._file.num_row_groups else 0
        for group in range(self._file.num_row_groups):
            parts = self._file.metadata.row_group(group)
            part = next(parts.column(n) for n in range(columns) if parts.column(n).path_in_schema == column)
            if part.statistics is None or part.statistics.null_count != parts.num_rows:
                return False
        return True

    def class_names(self, column: str) -> list[str] | None:
        """The class names that Hugging Face's `datasets` stores for a column of integers or lists of integers."""
        try:
            info = json.loads((self._file.schema_arrow.metadata or {})[b"huggingface"])
            feature = info["info"]["features"][column]
            feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of some columns, row by row; a struct's field is named `image.path`."""
        try:
            for batch in self._file.iter_batches(columns=list(dict.fromkeys(columns))):
                values = [_values(batch, column).to_pylist() for column in columns]
                yield from zip(*values, strict=True)
        except self._errors as error:
            raise ParquetError(f"'{self.path}' is not a readable Parquet file: {error}") from error

    def read(self, cell: Cell) -> object:
        """The value of a cell. Reading in row order is fast; any other order decodes rows again."""
        with self._lock:
            if cell.column != self._column:
                self._column, self._recent = cell.column, []
            try:
                while True:
                    for first, batch in self._recent:
                        if first <= cell.row < first + batch.num_rows:
                            return _values(batch, cell.column)[cell.row - first].as_py()
                    if not self._recent or cell.row < self._recent[0][0] or self._is_far(cell.row):
                        self._batches, self._recent = self._scan(cell), []
                    self._recent = [*self._recent[1 - _KEPT :], next(self._batches)]
            except StopIteration:
                raise ParquetError(f"'{self.path}' has no row {cell.row + 1}") from None
            except self._errors as error:
                raise ParquetError(f"'{self.path}' row {cell.row + 1} cannot be read: {error}") from error

    def _is_far(self, row: int) -> bool:
        """Whether the row is beyond the next row group, so that starting a new scan is faster."""
        return bisect_right(self._ends, row) > bisect_right(self._ends, self._recent[-1][0]) + 1

    def _scan(self, cell: Cell) -> Iterator[tuple[int, "RecordBatch"]]:
        """Batches from the row group of the cell to the end, each with the index of its first row."""
        group = bisect_right(self._ends, cell.row)
        first = self._ends[group - 1] if group else 0
        for number in range(group, len(self._ends)):
            for batch in self._file.iter_batches(_ROWS, [number], [cell.column], use_threads=False):
                yield first, batch
                first += batch.num_rows


def _values(batch: "RecordBatch", column: str) -> Any:
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    return batch.column(name).field(field)


@lru_cache(_OPEN_FILES)
def _open(path: str) -> ParquetTable:
    return ParquetTable(path)


def read_cell(path: str, cell: Cell) -> object:
    """The value of a cell. The file stays open for the next call; threads may call this at the same time.

    Raises:
        FileNotFoundError, ParquetError: as `ParquetTable` does.
    """
    return _open(path).read(cell)
