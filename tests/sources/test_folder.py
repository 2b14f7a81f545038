from pathlib import Path

import fsspec
import pytest

from pseudolabel.config import SourceConfig
from pseudolabel.sources.entry import BadSample, SourceError
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import Vocabulary


def open_folder(path: Path | str, vocabulary: Vocabulary, **settings: object) -> Source:
    return open_source(SourceConfig(kind="folder", path=str(path), **settings), vocabulary)


def test_the_first_folder_names_the_class(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("cat/x.jpg")
    save_image("dog/x.jpg")
    save_image("dog/deep/er/y.b.PNG")
    source = open_folder(f"{tmp_path}/", voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [
        ("cat/x", (8,)),
        ("dog/deep/er/y_b", (12,)),
        ("dog/x", (12,)),
    ]
    assert [source.read(entry).key for entry in source.entries] == ["cat/x", "dog/deep/er/y_b", "dog/x"]


def test_only_visible_images_are_listed(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    for name in ("cat/a.jpg", "cat/.hidden.jpg", ".cache/b.jpg", "cat/.thumbs/c.jpg"):
        save_image(name)
    (tmp_path / "cat/notes.txt").write_text("no image")
    (tmp_path / "cat/._a.jpg").write_bytes(b"what a Mac leaves behind")
    assert [entry.key for entry in open_folder(tmp_path, voc).entries] == ["cat/a"]


def test_a_folder_that_is_no_class(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("hors/a.jpg")
    save_image("horse/a.jpg")
    source = open_folder(tmp_path, voc)
    with pytest.raises(BadSample, match=r"hors/a\.jpg: unknown class 'hors' .*'horse'") as caught:
        source.read(source.entries[0])
    assert caught.value.status == "unknown_class"


def test_images_in_the_root_have_no_labels(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("a.jpg")
    source = open_folder(tmp_path, voc)
    with pytest.raises(BadSample) as caught:
        source.read(source.entries[0])
    assert caught.value.status == "unlabelled"
    assert open_folder(tmp_path, voc, unlabelled="background").read(source.entries[0]).classes == ()


@pytest.mark.parametrize("masks", ["masks", "images/masks"])
def test_masks_have_the_same_relative_path(tmp_path: Path, voc: Vocabulary, save_image, masks: str) -> None:
    save_image("images/cat/a.b.jpg")
    save_image("images/dog/c.jpg")
    save_image(f"{masks}/cat/a.b.png", 8, mode="L")
    source = open_folder(tmp_path / "images", voc, masks=str(tmp_path / masks))
    assert [entry.key for entry in source.entries] == ["cat/a_b", "dog/c"]
    truth = source.ground_truth(source.entries[0], (6, 8))
    assert truth is not None
    assert (truth.labels == 8).all()
    assert source.ground_truth(source.entries[1]) is None


def test_one_name_in_two_formats_is_a_repeated_key(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("cat/a.jpg")
    save_image("cat/a.png")
    with pytest.raises(SourceError, match=r"key 'cat/a' belongs to two images: .*a\.\w+.* and .*a\.\w+"):
        open_folder(tmp_path, voc)


def test_folders_behind_urls(voc: Vocabulary, save_image) -> None:
    fsspec.filesystem("memory").pipe_file("/classes/cat/a.png", save_image("a.png").read_bytes())
    source = open_folder("memory://classes", voc)
    assert [(entry.key, entry.path) for entry in source.entries] == [("cat/a", "memory://classes/cat/a.png")]
    assert source.read(source.entries[0]).image.size == (8, 6)


def test_missing_or_empty_folders(tmp_path: Path, voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*nowhere'; --source\.path needs"):
        open_folder(tmp_path / "nowhere", voc)
    with pytest.raises(SourceError, match="no images in"):
        open_folder(tmp_path, voc)
