import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pseudolabel.errors import ParquetError
from pseudolabel.io.parquet import Cell, ParquetTable, read_cell

COUNT = 1000  # rows, more than are kept in memory


@pytest.fixture(scope="module", params=[70, 1000])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    image = [{"bytes": b"%d" % number, "path": f"{number}.jpg"} for number in range(COUNT)]
    columns = {"image": image, "other": [b"x%d" % number for number in range(COUNT)], "none": pa.nulls(COUNT, "binary")}
    name = str(tmp_path_factory.mktemp("parquet") / "t.parquet")
    parquet.write_table(pa.table(columns), name, row_group_size=request.param)
    return name


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_cells_in_any_order(path: str, order: str) -> None:
    numbers = list(range(COUNT))[:: -25 if order == "backward" else 1]
    if order == "random":
        numbers = random.Random(0).sample(numbers, 60)
    assert [read_cell(path, Cell(number, "image.bytes")) for number in numbers] == [
        b"%d" % number for number in numbers
    ]


def test_cells_of_two_columns_alternately(path: str) -> None:
    for number in (0, 1, 500, 999):
        assert read_cell(path, Cell(number, "image.path")) == f"{number}.jpg"
        assert read_cell(path, Cell(number, "other")) == b"x%d" % number


def test_threads_read_one_file(path: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: read_cell(path, Cell(number, "image.bytes")), range(COUNT)))
    assert found == [b"%d" % number for number in range(COUNT)]


def test_table_metadata(path: str) -> None:
    table = ParquetTable(path)
    assert table.count == COUNT
    assert table.types()["image"] == "struct"
    assert table.types()["image.bytes"] == "binary"
    assert (table.is_empty("none"), table.is_empty("other")) == (True, False)
    assert table.class_names("other") is None
    assert list(table.rows(["image.path", "other"]))[7] == ("7.jpg", b"x7")


def test_a_missing_row(path: str) -> None:
    with pytest.raises(ParquetError, match="has no row 1001"):
        read_cell(path, Cell(COUNT, "other"))
    assert read_cell(path, Cell(3, "other")) == b"x3"


def test_a_file_damaged_after_listing(path: str, tmp_path: Path) -> None:
    data = Path(path).read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[:4] + bytes(2000) + data[2004:])
    with pytest.raises(ParquetError, match=r"row 1 cannot be read"):
        read_cell(str(tmp_path / "t.parquet"), Cell(0, "image.bytes"))
