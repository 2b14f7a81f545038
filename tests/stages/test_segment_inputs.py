import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.errors import UserError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.stages.segment_inputs import list_images

NAMES = (b"a", b"b", b"a.0.5", b"caf\xe9", b"new\nline", b".hidden", b"[v1]", b"10::30", "星".encode())
SUFFIXES = (b".jpg", b".png", b".JFIF", b".txt", b".json", b".heic", b"")
PATHS = st.builds(
    lambda folder, name, suffix: folder + name + suffix,
    st.sampled_from([b"", b"x/", b"x/y/", b"__MACOSX/", b"z #1/"]),
    st.sampled_from(NAMES),
    st.sampled_from(SUFFIXES),
)


@pytest.mark.slow
@given(st.sets(PATHS, min_size=1, max_size=25), st.sets(st.sampled_from(["out.png", "x/a.png", "b.overlay.png"])))
def test_every_file_is_an_image_a_failure_or_left_out(paths: set[bytes], own: set[str]) -> None:
    root = tempfile.mkdtemp()
    try:
        OwnFiles(Folder(root)).write(dict.fromkeys(own, b"a mask"))
        others = {b"always.jpg", *paths} - {os.fsencode(name) for name in own}
        for path in others:
            place = os.fsencode(root) + b"/" + path
            os.makedirs(os.path.dirname(place), exist_ok=True)
            Path(os.fsdecode(place)).write_bytes(b"\xff\xd8\xff\xe0")  # begins like a JPEG
        listed = list_images([root])
        assert len(listed.images) + len(listed.failures) + listed.left_out.total == len(others) + len(own)
        assert not {str(path) for path in listed.images.values()} & set(listed.failures)
    finally:
        shutil.rmtree(root)


def test_named_twice_and_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").symlink_to("a.jpg")
    listed = list_images([str(tmp_path / "a.jpg"), str(tmp_path / "a.jpg"), str(tmp_path)])
    assert list(listed.images) == ["a"]
    assert (dict(listed.left_out.reasons), listed.failures) == ({"named twice": 1}, {})


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").touch()
    listed = list_images([str(tmp_path / "a" / "x.png"), str(tmp_path / "b" / "x.png")])
    assert listed.images == {"x": tmp_path / "a" / "x.png"}
    assert listed.failures == {
        f"{tmp_path}/b/x.png": f"'{tmp_path}/b/x.png' would be written as 'x.png', like '{tmp_path}/a/x.png'; "
        "rename one of them"
    }
    assert set(list_images([str(tmp_path)]).images) == {"a/x", "b/x"}


def test_no_images_to_segment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file or folder '.*absent.jpg'"):
        list_images([str(tmp_path / "absent.jpg")])
    with pytest.raises(UserError, match="no images in"):
        list_images([str(tmp_path)])
