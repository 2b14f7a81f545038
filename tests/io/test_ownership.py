import json
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from pseudolabel.errors import FullDiskError, NotOursError, OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import MANIFEST, OwnFiles, write_own
from pseudolabel.io.walk import find_images
from tests.mounts import mounted_tmpfs

Open = Callable[[], OwnFiles]


@pytest.fixture(params=["local", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same folder each time, as one command after the other does."""
    path = str(tmp_path / "out") if request.param == "local" else f"memory://{uuid4().hex}/out"
    Folder(path).prepare()
    return lambda: OwnFiles(Folder(path))


def test_own_files_can_be_overwritten(opened: Open) -> None:
    opened().write({"a.png": b"one", "deep/er/b.json": b"two"})
    again = opened()
    again.check(["a.png", "deep/er/b.json", "absent.png"])
    again.write({"a.png": b"three"})
    assert again.folder.read_bytes("a.png") == b"three"
    assert opened().names() == {"a.png", "deep/er/b.json"}
    opened().write({"a.png": b"four"})


def test_files_of_others_are_kept(opened: Open) -> None:
    files = opened()
    files.folder.write_bytes("a.json", b"a user's")
    for write in (lambda: files.check(["a.json"]), lambda: files.write({"new.png": b"", "a.json": b"ours"})):
        with pytest.raises(
            NotOursError, match=r"a file that pseudolabel did not write.*'a.json'; choose another `out`"
        ):
            write()
    assert files.folder.read_bytes("a.json") == b"a user's"
    assert not files.folder.exists("new.png")


def test_an_existing_file_with_equal_bytes(opened: Open) -> None:
    """As two processes find it that write the same file."""
    first, second = opened(), opened()
    first.write({"labels.json": b"all"})
    second.write({"labels.json": b"all"})
    second.folder.write_bytes("labels.json", b"other")
    with pytest.raises(NotOursError):
        second.write({"labels.json": b"all"})


def test_files_changed_by_hand_are_kept(opened: Open) -> None:
    opened().write({"a.png": b"ours"})
    opened().folder.write_bytes("a.png", b"corrected by hand")
    with pytest.raises(NotOursError, match="or that changed since"):
        opened().write({"a.png": b"ours"})
    assert opened().folder.read_bytes("a.png") == b"corrected by hand"


def test_files_of_others_are_counted_and_the_first_named(opened: Open) -> None:
    files = opened()
    for number in range(5):
        files.folder.write_bytes(f"{number}.png", b"")
    with pytest.raises(NotOursError, match=r"holds 5 files that .*'0.png', '1.png', '2.png' and 2 more;"):
        files.check(f"{number}.png" for number in range(9))


def test_a_killed_writer_recognizes_its_file(tmp_path: Path) -> None:
    """Killed between the manifest and the file, or with either of two contents in place."""
    folder = Folder(str(tmp_path))
    OwnFiles(folder).write({"a.png": b"old"})
    OwnFiles(folder).note({"a.png": "0" * 64})  # and killed: the old bytes are still there
    OwnFiles(folder).write({"a.png": b"new"})
    assert folder.read_bytes("a.png") == b"new"


def test_a_truncated_line_does_not_affect_others(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    OwnFiles(folder).write({"a.png": b"a"})
    with open(tmp_path / MANIFEST, "ab") as file:
        file.write(b'{"file": "cut sh')
    OwnFiles(folder).write({"b.png": b"b"})
    assert OwnFiles(folder).names() == {"a.png", "b.png"}
    OwnFiles(folder).write({"a.png": b"aa", "b.png": b"bb"})


def test_every_rank_has_a_manifest_and_reads_the_others(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    first, second = OwnFiles(folder, 0), OwnFiles(folder, 1)
    first.write({"a.png": b"a"})
    second.write({"b.png": b"b"})
    second.write({"a.png": b"an image that both ranks have"})
    assert {path.name for path in tmp_path.glob(".*")} == {MANIFEST, f"{MANIFEST}-1"}
    OwnFiles(folder, 1).write({"a.png": b"aa"})
    OwnFiles(folder, 0).write({"a.png": b"aaa", "b.png": b"bb"})


def test_equal_bytes_are_recorded_once(tmp_path: Path) -> None:
    for _ in range(3):
        OwnFiles(Folder(str(tmp_path))).write({"a.png": b"a"})
    lines = (tmp_path / MANIFEST).read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["a.png"]


def test_links_and_folders_are_not_owned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    OwnFiles(Folder(str(out))).folder.prepare()
    (out / "link.png").symlink_to(tmp_path / "photo.png")
    (out / "folder.png").mkdir()
    for name in ("link.png", "folder.png"):
        with pytest.raises(NotOursError, match=name):
            OwnFiles(Folder(str(out))).write({name: b""})
    assert not (tmp_path / "photo.png").exists()


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "b/../../a.png", "link/a.png", "link/new/a.png"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    files = OwnFiles(Folder(str(tmp_path / "out")))
    assert files.obstacle(name)
    with pytest.raises(OutputError, match="outside"):
        files.write({name: b""})
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]
    assert os.listdir(tmp_path / "elsewhere") == []


def test_an_output_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big disk")
    OwnFiles(Folder(str(tmp_path / "out"))).write({"a/b.png": b"b"})
    assert (tmp_path / "big disk" / "a" / "b.png").read_bytes() == b"b"


def test_obstacles_are_found_before_writing(tmp_path: Path) -> None:
    files = OwnFiles(Folder(str(tmp_path / "not there yet")))
    assert files.obstacle("a/b.png") == ""
    for long in ("x" * 255 + ".png", "new/" + "x" * 255 + ".png"):
        assert "is too long: 259 bytes of at most 255" in files.obstacle(long)
        files.folder.prepare()
    (tmp_path / "file").touch()
    assert f"'{tmp_path}/file' is a file where a folder is needed" in OwnFiles(Folder(str(tmp_path))).obstacle("file/a")


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    name = "星" * 83 + ".png"  # 253 bytes of 255
    OwnFiles(Folder(str(tmp_path))).write({name: b"a"})
    assert (tmp_path / name).read_bytes() == b"a"


def test_one_file_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_own("sheet.png", b"one", "`out_file`")
    write_own("new/sheet.png", b"two", "`out_file`")
    write_own(str(tmp_path / "sheet.png"), b"three", "`out_file`")
    (tmp_path / "photo.png").write_bytes(b"a photo")
    with pytest.raises(NotOursError, match="choose another `out_file`"):
        write_own("photo.png", b"four", "`out_file`")
    assert (tmp_path / "sheet.png").read_bytes() == b"three"
    assert (tmp_path / "photo.png").read_bytes() == b"a photo"


def test_a_full_disk(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "size=1m"):
        files = OwnFiles(Folder(str(tmp_path)))
        files.write({"a.png": b"a" * 600_000})
        with pytest.raises(FullDiskError, match="every finished file is complete"):
            files.write({"b.png": b"b" * 600_000})
        (tmp_path / "a.png").unlink()
        OwnFiles(Folder(str(tmp_path))).write({"b.png": b"b" * 600_000})


def test_manifests_are_no_input(opened: Open) -> None:
    opened().write({"a.png": b"a", "b/c.png": b"c"})
    found, left_out = find_images(opened().folder.path)
    assert (found, dict(left_out.reasons)) == (["a.png", "b/c.png"], {})
