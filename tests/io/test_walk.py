import io
import os
import socket
import sys
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from pseudolabel.errors import PathError
from pseudolabel.io.image_formats import formats
from pseudolabel.io.walk import find_images


def encoded(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (20, 10), "red" if mode == "RGB" else 1).save(buffer, kind)
    return buffer.getvalue()


JPEG = encoded("JPEG")


def fill(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_images_are_recognized_by_suffix_or_content(tmp_path: Path) -> None:
    images = {
        "a.jfif": JPEG, "b.jpe": JPEG, "c.jpg_large": JPEG, "deep/er/noext": JPEG, "d.avif": encoded("AVIF"),
        "e.jp2": encoded("JPEG2000"), "f.JPG": JPEG, "g.jpg?w=640": JPEG, "h.php": encoded("PNG"), "i": encoded("GIF"),
        "j.jpg.2": encoded("WEBP"), "k": encoded("TIFF"), "l": encoded("BMP"), "m": encoded("PPM"),
        "n.tga": encoded("TGA"),
        "o": encoded("AVIF"), "p": encoded("JPEG2000"), "q": encoded("PPM", "1"), "r .jpg ": JPEG,
        "broken.jpg": b"<!DOCTYPE html>", "empty.png": b"",
    }  # fmt: skip
    fill(tmp_path, images)
    assert find_images(str(tmp_path)) == (sorted(images), find_images(str(tmp_path))[1])
    assert find_images(f"{tmp_path}/")[1].total == 0


def test_other_files_are_counted_by_suffix_with_a_hint(tmp_path: Path) -> None:
    others = {
        "a.txt": JPEG, "b.TXT": b"", "README": b"Python is", "c.weird": b"BM is no bitmap", "e.nef": encoded("TIFF"),
        "f.tar": b"", "g.jxl": b"\xff\x0a", "no": b"", "P1 is": b"P1 is a plan", "h.a rare suffix": b"x",
    }  # fmt: skip
    fill(tmp_path, others)
    names, left_out = find_images(str(tmp_path))
    assert names == []
    assert left_out.reasons == {
        ".txt": 2, "without a suffix": 3, ".weird": 1, ".nef (camera raw; convert to TIFF or JPEG)": 1,
        ".tar (unpack it, or `source.kind` shards)": 1, ".jxl (convert to PNG or JPEG)": 1, "of other kinds": 1,
    }  # fmt: skip


def test_many_suffixes_do_not_make_a_long_line(tmp_path: Path) -> None:
    fill(tmp_path, {f"a.{number:03}": b"x" for number in range(50)} | {"b.000": b"x"})
    reasons = find_images(str(tmp_path))[1].reasons
    assert (reasons[".000"], reasons["of other kinds"], len(reasons)) == (2, 38, 13)


def test_hidden_and_system_files_are_counted(tmp_path: Path) -> None:
    junk = [
        ".hidden.jpg",
        "._a.jpg",
        ".git/x/y.jpg",
        "a/.ipynb_checkpoints/b.jpg",
        "__MACOSX/a/._b.jpg",
        "a/@eaDir/c.jpg",
    ]
    fill(tmp_path, dict.fromkeys([*junk, "a/b.jpg"], JPEG))
    names, left_out = find_images(str(tmp_path))
    assert names == ["a/b.jpg"]
    assert left_out.reasons == {"hidden": 4, "in __MACOSX": 1, "in @eaDir": 1}


def test_links_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    fill(tmp_path, {"root/star/a.jpg": JPEG, "store/b.jpg": JPEG, "store/deep/c.jpg": JPEG})
    for name, target in {
        "root/star/up": "..", "root/star/self": "self", "root/star/gone.jpg": "/nonexistent.jpg",
        "root/a_linked": "star",
        "root/circle": tmp_path / "store", "root/twice": tmp_path / "store", "root/above": tmp_path,
        "root/one.jpg": tmp_path / "store/b.jpg", "store/back": root,
    }.items():  # fmt: skip
        (tmp_path / name).symlink_to(target)
    names, left_out = find_images(str(root))
    assert names == ["circle/b.jpg", "circle/deep/c.jpg", "one.jpg", "star/a.jpg"]
    assert left_out.reasons == {
        "broken link": 2,
        "link to a folder that is listed already": 4,
        "link to a folder above": 1,
    }


def test_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.png"))
        assert find_images(str(tmp_path)) == ([], find_images(str(tmp_path))[1])
        assert find_images(str(tmp_path))[1].reasons == {"pipe, socket or device": 3}


@pytest.mark.parametrize("spelling", ["root/masks", "root/../root/masks/", "linked"])
def test_files_of_an_excluded_folder_are_counted_separately(tmp_path: Path, spelling: str) -> None:
    fill(
        tmp_path, {"root/a.jpg": JPEG, "root/masks/a.png": JPEG, "root/masks/b/c.png": JPEG, "root/masks2/d.jpg": JPEG}
    )
    (tmp_path / "linked").symlink_to(tmp_path / "root/masks")
    names, left_out = find_images(str(tmp_path / "root"), f"{tmp_path}/{spelling}")
    assert names == ["a.jpg", "masks2/d.jpg"]
    assert left_out.reasons == {"in 'masks'": 2}


ODD = [
    "10::30.jpg", "a#b?c.jpg", "50%20off.jpg", "-dash.jpg", "{x,y}.jpg", "a*b.jpg", "new\nline.jpg", " sp .jpg",
    "quote\"'.jpg", "[v1].jpg", "zip::a.jpg", "~.jpg", "~root/a.jpg", "file:b.jpg", "back\\slash.jpg", "caf\udce9.jpg",
]  # fmt: skip


@pytest.mark.parametrize("folder", ["[v1]", "10::30", "data::x", "a*b", "{x,y}", "new\nline", " sp ", "~", "caf\udce9"])
def test_any_name_is_listed_and_can_be_opened(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / folder, dict.fromkeys(ODD, JPEG) | {"unknown\n[1]": JPEG})
    for root in (f"{tmp_path}/{folder}", f"file://{tmp_path}/{folder}"):
        assert find_images(root)[0] == sorted([*ODD, "unknown\n[1]"])
    monkeypatch.chdir(tmp_path)
    if folder != "~":
        assert find_images(folder)[0] == sorted([*ODD, "unknown\n[1]"])
    monkeypatch.chdir(folder)
    assert find_images(".")[0] == sorted([*ODD, "unknown\n[1]"])


def test_folders_at_urls() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("cat/a.png", "cat/b", "10::30.jpg", ".hidden.jpg", "__MACOSX/a.jpg", "masks/a.png", "notes.txt", "c"):
        memory.pipe_file(f"/walked [v1]/{name}", b"text" if name == "c" else JPEG)
    names, left_out = find_images("memory://walked [v1]/", "memory://walked [v1]/masks")
    assert names == ["10::30.jpg", "cat/a.png", "cat/b"]
    assert left_out.reasons == {"hidden": 1, "in __MACOSX": 1, "in 'masks'": 1, ".txt": 1, "without a suffix": 1}


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"nowhere' cannot be listed: .*No such file"):
        find_images(str(tmp_path / "nowhere"))


def test_heic_photos_are_read_with_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif")
    formats()
    photo = encoded("HEIF")
    fill(tmp_path, {"a.heic": b"damaged", "b": photo, "c.HEIF": photo, "d.jpg": photo})
    assert find_images(str(tmp_path))[0] == ["a.heic", "b", "c.HEIF", "d.jpg"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.cache_clear()
    try:
        names, left_out = find_images(str(tmp_path))
    finally:
        formats.cache_clear()
    assert names == ["d.jpg"]
    assert left_out.reasons == {".heic (pip install pillow-heif)": 2, ".heif (pip install pillow-heif)": 1}
