from pathlib import Path

import fsspec
import pytest

from pseudolabel.errors import PathError, SampleError, SourceError
from pseudolabel.io.files import Location, join, read_bytes, read_text
from pseudolabel.io.filesystem import open_filesystem


def test_reads_files_and_ranges(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    path = str(tmp_path / "a.bin")
    assert read_bytes(Location(path)) == bytes(range(100))
    assert read_bytes(Location(path, 10, 5)) == bytes(range(10, 15))
    assert read_bytes(Location(path, 0, 0)) == b""
    assert read_bytes(Location(f"file://{path}", 99, 1)) == bytes([99])


def test_reads_urls() -> None:
    fsspec.filesystem("memory").pipe_file("/files/a.bin", b"0123456789")
    assert read_bytes(Location("memory://files/a.bin", 3, 4)) == b"3456"


def test_a_range_beyond_the_end_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"0123")
    with pytest.raises(SampleError, match="before byte 6") as caught:
        read_bytes(Location(str(tmp_path / "a.bin"), 2, 4))
    assert caught.value.status == "truncated"


@pytest.mark.parametrize(("name", "status"), [("absent", "missing"), (".", "unreadable")])
def test_unreadable_files_are_sample_errors(tmp_path: Path, name: str, status: str) -> None:
    with pytest.raises(SampleError) as caught:
        read_bytes(Location(str(tmp_path / name)))
    assert caught.value.status == status


def test_an_unknown_protocol_is_reported() -> None:
    with pytest.raises(PathError, match="Protocol not known: nonsense"):
        open_filesystem("nonsense://a/b")
    with pytest.raises(SampleError, match="Protocol not known: nonsense") as caught:
        read_bytes(Location("nonsense://a/b"))
    assert caught.value.status == "unreadable"


def test_the_byte_order_mark_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffä\r\n".encode())
    assert read_text(str(tmp_path / "a.txt"), "write it") == "ä\r\n"
    (tmp_path / "b.txt").write_bytes(b"\xe4")
    with pytest.raises(SourceError, match=r"b\.txt' is not UTF-8"):
        read_text(str(tmp_path / "b.txt"), "write it")
    with pytest.raises(SourceError, match=r"no file '.*c\.txt'; write it"):
        read_text(str(tmp_path / "c.txt"), "write it")


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("data", "a.jpg", "data/a.jpg"),
        ("data/", "a.jpg", "data/a.jpg"),
        ("", "a.jpg", "a.jpg"),
        ("/", "a.jpg", "/a.jpg"),
        ("s3://bucket/data", "a/b.jpg", "s3://bucket/data/a/b.jpg"),
        ("data", "/absolute/a.jpg", "/absolute/a.jpg"),
        ("data", "https://host/a.jpg", "https://host/a.jpg"),
    ],
)
def test_join(folder: str, name: str, path: str) -> None:
    assert join(folder, name) == path
