import zipfile
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from pseudolabel.io.filesystem import open_filesystem


@pytest.mark.parametrize(
    "name", ["10::30.jpg", "zip::a.jpg", "file:a", "[v1]", "a#b?c%20", " a ", "new\nline", "caf\udce9"]
)
def test_local_paths_may_have_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for spelling in (name, f"./{name}", f"{tmp_path}/{name}", f"file://{tmp_path}/{name}"):
        fs, path = open_filesystem(spelling)
        assert isinstance(fs, LocalFileSystem)
        assert path == f"{tmp_path}/{name}"
        assert fs.isfile(path)


def test_the_home_folder_and_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_filesystem("~/a::b")[1] == f"{tmp_path}/a::b"
    assert open_filesystem("/")[1] == "/"
    assert open_filesystem(f"{tmp_path}/a/")[1] == f"{tmp_path}/a"


def test_urls_may_be_nested(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.jpg", b"inside")
    fs, path = open_filesystem(f"zip://b.jpg::{tmp_path}/a.zip")
    assert fs.cat_file(path) == b"inside"
    fs, path = open_filesystem("simplecache::memory://colons/10.jpg")
    assert (fs.protocol[0] if isinstance(fs.protocol, tuple) else fs.protocol) == "simplecache"
