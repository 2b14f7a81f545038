from pathlib import Path

import pytest

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import MARKER, claim_folder, clear_folder


def test_a_new_folder_is_claimed_and_cleared(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    clear_folder(out, "demo")
    (out / "masks").mkdir()
    (out / "masks" / "a.tar").write_bytes(b"a")
    (out / "link").symlink_to(tmp_path)
    claim_folder(out, "demo")
    assert (out / "masks" / "a.tar").exists()
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    clear_folder(out, "demo")
    assert [path.name for path in out.iterdir()] == [MARKER]
    assert (tmp_path / "photo.jpg").exists()


@pytest.mark.parametrize("marker", [None, '{"owner": "another"}', "[]", "{"])
def test_a_users_folder_is_kept(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    for claim in (claim_folder, clear_folder):
        with pytest.raises(OutputError, match="choose another --work"):
            claim(tmp_path, "demo", "--work")
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be used.*choose another `out`"):
        claim_folder(tmp_path / "file", "demo")
