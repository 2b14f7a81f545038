from pathlib import Path

import pytest

from pseudolabel.errors import SourceError
from pseudolabel.io.folder import Folder
from pseudolabel.sources.entry import Entry
from pseudolabel.stages.predictions import Predictions, find_predictions


def entries(*keys: str, image: str = "/data/{}.jpg") -> list[Entry]:
    return [Entry(key, image.format(key), (), "list") for key in keys]


def find(folder: Path, listed: list[Entry], *files: str) -> Predictions:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return find_predictions("masks", Folder(str(folder)), listed)


def test_names_with_dots_are_matched_as_images_are(tmp_path: Path) -> None:
    found = find(tmp_path, entries("frame_0_5", "a_b/c_d"), "frame.0.5.png", "a.b/c.d.PNG")
    assert found.files == {"frame_0_5": "frame.0.5.png", "a_b/c_d": "a.b/c.d.PNG"}
    assert not found.unlisted


def test_folders_are_matched_by_the_complete_path(tmp_path: Path) -> None:
    found = find(tmp_path, entries("a/img", "b/img"), "a/img.png", "b/img.png", "c/img.png")
    assert found.files == {"a/img": "a/img.png", "b/img": "b/img.png"}
    assert found.unlisted == ["c/img.png"]


def test_a_unique_name_is_sufficient(tmp_path: Path) -> None:
    found = find(tmp_path, entries("one", "x/two"), "sub/one.png", "two.png")
    assert found.files == {"one": "sub/one.png", "x/two": "two.png"}
    by_image = find_predictions("masks", Folder(str(tmp_path)), entries("0001", image="/data/one.jpg"))
    assert by_image.files == {"0001": "sub/one.png"}


def test_a_complete_path_wins_and_several_names_are_ambiguous(tmp_path: Path) -> None:
    found = find(tmp_path, entries("one", "two"), "one.png", "old/one.png", "a/two.png", "b/two.png")
    assert found.files == {"one": "one.png"}
    assert found.unlisted == ["old/one.png"]
    assert found.failures["two"].message == "'two' has several predictions: a/two.png, b/two.png"


def test_two_names_of_one_key_are_ambiguous(tmp_path: Path) -> None:
    found = find(tmp_path, entries("a_b"), "a.b.png", "a_b.png")
    assert not found.files
    assert found.failures["a_b"].status == "several predictions"


def test_other_files_are_counted(tmp_path: Path) -> None:
    found = find(tmp_path, entries("a"), "a.png", "a.overlay.png", "a.json", "b.jpg", ".hidden.png")
    assert found.files == {"a": "a.png"}
    assert dict(found.left_out.reasons) == {".overlay.png": 1, ".json": 1, ".jpg": 1, "hidden": 1}


def test_no_predictions_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no mask shards or PNG masks in"):
        find(tmp_path, entries("a"), "a.overlay.png")
    (tmp_path / "a.png").touch()
    with pytest.raises(SourceError, match="no CAM shards in"):
        find_predictions("cams", Folder(str(tmp_path)), entries("a"))
