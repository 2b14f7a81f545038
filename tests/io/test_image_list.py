from pathlib import Path

import fsspec
import pytest

from pseudolabel.errors import ImageListError
from pseudolabel.io.image_list import ImageNames, read_image_list


def write(folder: Path, content: str | bytes) -> str:
    path = folder / "train.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(folder: Path, content: str | bytes, files: list[str] | None = None) -> list[tuple[str, str, str]]:
    images = None if files is None else ImageNames(files)
    return [(image.id, image.file, image.mask) for image in read_image_list(write(folder, content), images).values()]


@pytest.mark.parametrize(
    "content",
    [
        "a\nb.1\n",
        "a.jpg\nb.1.JPG",
        "\ufeffa  \r\n\r\nb.1\t\r\n",
        "a\rb.1\r",
        "\ufeffa\nb.1\n".encode("utf-16-le"),
        "\n  a\n\tb.1\t\n\n",
        "a  1\nb.1 -1\n",
        "a\t1\nb.1\tdog\n",
        "/JPEGImages/a.jpg\n./JPEGImages//b.1.png\n",
        "C:\\data\\JPEGImages\\a.jpg\r\nJPEGImages\\b.1.jpg\r\n",
        "/data/VOC2012/JPEGImages/a.jpg 0 3\n/data/VOC2012/JPEGImages/b.1.jpg 4\n",
    ],
)
@pytest.mark.parametrize("files", [None, ["a.jpg", "b.1.jpg"]])
def test_lists_in_common_spellings(tmp_path: Path, content: str | bytes, files: list[str] | None) -> None:
    found = ["", ""] if files is None else files
    assert read(tmp_path, content, files) == [("a", found[0], ""), ("b.1", found[1], "")]


@pytest.mark.parametrize(
    ("line", "name", "mask"),
    [
        ("/JPEGImages/a.jpg /SegmentationClassAug/a.png", "a", "/SegmentationClassAug/a.png"),
        ("JPEGImages/a.jpg\tmasks/a.png\tedges/a.png", "a", "masks/a.png"),
        ("JPEGImages/a.jpg, masks/a.png", "a", "masks/a.png"),
        ("JPEGImages/leaf (1).jpg  masks/leaf (1).png", "leaf (1)", "masks/leaf (1).png"),
        ("leaf (1) masks/leaf (1).png", "leaf (1)", "masks/leaf (1).png"),
        ("JPEGImages/a.jpg JPEGImages/a_mask.png", "a", "JPEGImages/a_mask.png"),
        ("city/a.jpg 1", "city/a", ""),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_second_column_that_names_a_mask(tmp_path: Path, line: str, name: str, mask: str, known: bool) -> None:
    files = [f"{name}.jpg", "a_mask.png", "b.jpg"] if known else None
    assert read(tmp_path, line, files) == [(name, f"{name}.jpg" if known else "", mask)]


@pytest.mark.parametrize("ids", [["shape 001", "shape 002"], ["leaf (1)", "tree (1)"], ["leaf 0", "leaf 1"], ["a,b"]])
@pytest.mark.parametrize("known", [False, True])
def test_blanks_inside_ids(tmp_path: Path, ids: list[str], known: bool) -> None:
    files = [f"{name}.jpg" for name in ids] if known else None
    assert [name for name, _, _ in read(tmp_path, "\n".join(ids), files)] == ids


def test_existing_files_distinguish_columns_from_ids(tmp_path: Path) -> None:
    assert read(tmp_path, "leaf 1\n", ["leaf 1.jpg", "leaf.jpg"]) == [("leaf 1", "leaf 1.jpg", "")]
    assert read(tmp_path, "leaf 1\n", ["leaf.jpg"]) == [("leaf", "leaf.jpg", "")]
    assert read(tmp_path, "leaf 0 3 12\n", ["leaf.jpg"]) == [("leaf", "leaf.jpg", "")]
    assert read(tmp_path, "a.jpg copy\n", ["a.jpg copy.png"]) == [("a.jpg copy", "a.jpg copy.png", "")]


def test_files_are_found_by_id(tmp_path: Path) -> None:
    images = ImageNames(["a.JPG", "b.jpeg", "sub/c.png", "v1.2.jpg", "e.png", "e.jpg", "e.webp", "cafe\u0301.jpg", "x"])
    assert [images.find(name) for name in ("a", "b.jpg", "sub/c", "v1.2", "v1", "c", "x")] == [
        *("a.JPG", "b.jpeg", "sub/c.png", "v1.2.jpg", None, None, "x")
    ]
    assert [images.find(name) for name in ("e", "e.png", "e.gif")] == ["e.jpg", "e.png", "e.jpg"]
    assert images.find("caf\u00e9") == "cafe\u0301.jpg"


def test_a_list_in_the_file_systems_bytes_matches_its_names(tmp_path: Path) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert read(tmp_path, b"caf\xe9\n", [f"{name}.jpg"]) == [(name, f"{name}.jpg", "")]


def test_the_image_folder_is_removed_from_ids(tmp_path: Path) -> None:
    path = write(tmp_path, "coco/val2017/1.jpg\n2.jpg\n")
    assert list(read_image_list(path, folder="val2017")) == ["1", "2"]


def test_origins_name_list_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a\n\nb\n")
    assert [image.origin for image in read_image_list(path).values()] == [f"{path} line 1", f"{path} line 3"]


def test_lists_behind_urls() -> None:
    fsspec.filesystem("memory").pipe_file("/lists/train.txt", b"a\nb\n")
    assert list(read_image_list("memory://lists/train.txt")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\na.jpg\n", "'a' is listed twice: .*train.txt line 1 and .*train.txt line 3; remove one of the lines"),
        (" \r\n\n", r"train\.txt' is empty; a list of images names one per line"),
        (b"\x89PNG\0\0", r"train\.txt' is not text"),
        (b"\xff\xfea", r"train\.txt' is not text"),
    ],
)
def test_invalid_lists(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ImageListError, match=message):
        read_image_list(write(tmp_path, content))


def test_a_missing_list_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ImageListError, match=r"no file '.*none\.txt'; do that"):
        read_image_list(str(tmp_path / "none.txt"), hint="do that")
    with pytest.raises(ImageListError, match="nonsense"):
        read_image_list("nonsense://none.txt")
