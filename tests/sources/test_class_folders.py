from pathlib import Path

import pytest

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError, VocabularyError
from pseudolabel.sources.class_folders import vocabulary_of_folders
from pseudolabel.vocabulary import Vocabulary


def chosen(path: Path, **settings: str) -> Vocabulary:
    return vocabulary_of_folders(SourceConfig(kind="folder", path=str(path), **settings))[0]


def test_unknown_folders_are_the_classes(tmp_path: Path, save_image) -> None:
    for name in ("red_car", "Dog", "background", "masks", ".hidden"):
        save_image(f"{name}/a.jpg")
    (tmp_path / "empty").mkdir()
    vocabulary = chosen(tmp_path, masks=str(tmp_path / "masks"))
    assert vocabulary.names == ("background", "Dog", "red_car")
    assert [vocabulary.prompt(index) for index in (1, 2)] == ["Dog", "red car"]
    assert vocabulary.has_background
    assert "grass" in vocabulary.background_words


def test_one_folder_is_one_class(tmp_path: Path, save_image) -> None:
    save_image("leaf, spot/a.jpg")
    assert chosen(tmp_path).names == ("background", "leaf, spot")


@pytest.mark.parametrize(
    ("folders", "name"),
    [(["Dog", "airplane"], "voc"), (["zebra", "dog"], "coco"), (["star", "circle"], "shapes"), ([], "voc")],
)
def test_a_shipped_vocabulary_that_knows_all_folders_is_taken(
    tmp_path: Path, save_image, folders: list[str], name: str
) -> None:
    for folder in [*folders, "."]:
        save_image(f"{folder}/a.jpg")
    vocabulary, told = vocabulary_of_folders(SourceConfig(kind="folder", path=str(tmp_path)))
    assert vocabulary.name == name
    assert told.startswith(f"vocabulary: {name}, since ")


def test_classes_below_folders_of_splits(tmp_path: Path, save_image) -> None:
    save_image("train/leaf/a.jpg")
    save_image("val/stem/a.jpg")
    assert chosen(tmp_path, split="val").names == ("background", "stem")


def test_folders_that_make_no_vocabulary(tmp_path: Path, save_image) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*nowhere'; `source\.path` needs"):
        chosen(tmp_path / "nowhere")
    for number in range(255):
        save_image(f"leaf {number}/a.jpg", size=(1, 1))
    with pytest.raises(VocabularyError, match="255 classes"):
        chosen(tmp_path)
