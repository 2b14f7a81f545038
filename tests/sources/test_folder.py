from pathlib import Path

import fsspec
import pytest

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.ownership import write_own
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
    save_image("cat/a.jpg")
    source = open_folder(tmp_path, voc)
    with pytest.raises(SampleError, match=r"hors/a\.jpg: unknown class 'hors' .*'horse'") as caught:
        source.read(source.entries[1])
    assert caught.value.status == "unknown_class"


def test_where_no_folder_is_a_class_both_sides_are_named(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    for name in ("Hors/a.jpg", "background/b.jpg", *(f"{number}x/c.jpg" for number in range(12))):
        save_image(name)
    told = r"class of vocabulary 'voc': the folders are 0x, 10x, .* and 3 more; the classes are aeroplane, bicycle, "
    with pytest.raises(SourceError, match=told):
        open_folder(tmp_path, voc)
    assert len(open_folder(tmp_path, voc, labels="none").entries) == 14


def test_folders_of_numbers_are_indices(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("0/a.jpg")
    source = open_folder(tmp_path, voc)
    assert source.entries[0].classes == (1,)


def test_images_in_the_root_have_no_labels(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("a.jpg")
    with pytest.raises(SourceError, match=r"no image in .* is in a folder that names its class, .*'aeroplane/image"):
        open_folder(tmp_path, voc)
    save_image("dog/b.jpg")
    source = open_folder(tmp_path, voc)
    with pytest.raises(SampleError) as caught:
        source.read(source.entries[0])
    assert caught.value.status == "unlabelled"
    background = open_folder(tmp_path, voc, unlabelled="background")
    assert background.read(background.entries[0]).classes == ()


def test_a_folder_called_background_holds_none_of_the_classes(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("Background/a.jpg")
    save_image("dog/b.jpg")
    source = open_folder(tmp_path, voc, unlabelled="background")
    assert [source.read(entry).classes for entry in source.entries] == [(), (12,)]


def test_folders_of_splits_stand_above_those_of_classes(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    for name in ("train/cat/a.jpg", "train/dog/deep/b.jpg", "val/cat/a.jpg", "masks/val/cat/a.png"):
        save_image(name, *([8] if name.startswith("masks") else []), mode="L")
    masks = str(tmp_path / "masks")
    train = open_folder(tmp_path, voc, masks=masks)
    assert [(entry.key, entry.classes) for entry in train.entries] == [
        ("train/cat/a", (8,)),
        ("train/dog/deep/b", (12,)),
    ]
    assert train.left_out.reasons == {"in val/ (`source.split` val)": 1, "in 'masks'": 1}
    val = open_folder(tmp_path, voc, split="val", masks=masks)
    assert [entry.key for entry in val.entries] == ["val/cat/a"]
    truth = val.ground_truth(val.entries[0], (6, 8))
    assert truth is not None
    assert (truth.labels == 8).all()
    with pytest.raises(SourceError, match=r"holds the splits train, val, and none is called 'test'"):
        open_folder(tmp_path, voc, split="test", masks=masks)


def test_train_is_a_class_where_images_lie_in_it(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("train/a.jpg")
    save_image("train/deep/b.jpg")
    assert [entry.classes for entry in open_folder(tmp_path, voc).entries] == [(19,), (19,)]


def test_what_is_no_image_is_counted(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("cat/a.jpg")
    (tmp_path / "cat/notes.txt").write_text("no image")
    assert str(open_folder(tmp_path, voc).left_out) == "1 file left out: 1 .txt"
    (tmp_path / "cat/a.jpg").unlink()
    with pytest.raises(SourceError, match=r"no images in .*: 1 file left out: 1 \.txt; check `source\.path`"):
        open_folder(tmp_path, voc)


def test_a_name_that_is_no_utf8_is_one_failure(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("cat/ok.jpg")
    (tmp_path / "cat/caf\udce9.jpg").write_bytes((tmp_path / "cat/ok.jpg").read_bytes())
    source = open_folder(tmp_path, voc)
    assert [entry.key for entry in source.entries] == ["cat/caf\\xe9", "cat/ok"]
    with pytest.raises(SampleError, match=r"cat/caf\\xe9\.jpg: the name .* is no UTF-8; rename it") as caught:
        source.read(source.entries[0])
    assert caught.value.status == "undecodable_name"
    assert source.read(source.entries[1]).key == "cat/ok"


def test_a_root_that_is_no_utf8_is_read(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("caf\udce9/cat/ok.jpg")
    (tmp_path / "caf\udce9/cat/empty.jpg").touch()
    source = open_folder(tmp_path / "caf\udce9", voc)
    assert source.read(source.entries[1]).key == "cat/ok"
    with pytest.raises(SampleError, match=r"caf\\xe9/cat/empty\.jpg: the file is empty"):
        source.read(source.entries[0])


def test_names_with_the_signs_of_urls_and_patterns_are_read(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    names = ["10::30", "a#b?c", "50%20off", "-dash", "{x,y}", "a*b", "new\nline", " sp ", "quote\"'", "zip::a", "[v1]"]
    for name in names:
        save_image(f"zip::[v1]/cat/{name}.jpg")
        save_image(f"zip::[v1]/masks/cat/{name}.png", 8, mode="L")
    root = tmp_path / "zip::[v1]"
    source = open_folder(root, voc, masks=str(root / "masks"))
    assert [entry.key for entry in source.entries] == sorted(f"cat/{name}" for name in names)
    assert [source.read(entry).image.size for entry in source.entries] == [(8, 6)] * len(names)
    assert all(source.ground_truth(entry, (6, 8)) is not None for entry in source.entries)


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


def test_an_image_without_a_suffix_has_a_mask_of_its_name(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    image = save_image("images/v1.0/c.jpg").read_bytes()
    (tmp_path / "images/v1.0/a").write_bytes(image)
    (tmp_path / "images/v1.0/b.jpg_large").write_bytes(image)
    for name in "abc":
        save_image(f"masks/v1.0/{name}.png", 8, mode="L")
    source = open_folder(tmp_path / "images", voc, masks=str(tmp_path / "masks"), labels="none")
    assert [entry.key for entry in source.entries] == ["v1_0/a", "v1_0/b", "v1_0/c"]
    assert all(source.ground_truth(entry, (6, 8)) is not None for entry in source.entries)


def test_one_name_in_two_formats_is_a_repeated_key(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    save_image("cat/a.jpg")
    save_image("cat/a.png")
    save_image("dog/b.jpg")
    save_image("dog/b.jpeg")
    told = r"key 'cat/a' belongs to two images: .*a\.jpg and .*a\.png, and 1 more keys do so; .*`source\.masks`"
    with pytest.raises(SourceError, match=told):
        open_folder(tmp_path, voc)


def test_folders_behind_urls(voc: Vocabulary, save_image) -> None:
    fsspec.filesystem("memory").pipe_file("/classes/cat/a.png", save_image("a.png").read_bytes())
    source = open_folder("memory://classes", voc)
    assert [(entry.key, entry.path) for entry in source.entries] == [("cat/a", "memory://classes/cat/a.png")]
    assert source.read(source.entries[0]).image.size == (8, 6)


def test_missing_or_empty_folders(tmp_path: Path, voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*nowhere'; `source\.path` needs"):
        open_folder(tmp_path / "nowhere", voc)
    with pytest.raises(SourceError, match="no images in"):
        open_folder(tmp_path, voc)


def test_results_inside_the_folder_are_no_images(tmp_path: Path, voc: Vocabulary, save_image) -> None:
    image = save_image("cat/a.jpg").read_bytes()
    write_own(str(tmp_path / "out/sheet.png"), image)
    write_own(str(tmp_path / "cat/b.png"), image)
    save_image("out/mine.png")
    for root in (tmp_path, f"{tmp_path}/"):
        source = open_folder(root, voc)
        assert [entry.key for entry in source.entries] == ["cat/a", "out/mine"]
        assert source.left_out.reasons["written by pseudolabel"] == 2


@pytest.mark.parametrize("exact", ["a.b.png", "a.b.tif"])
def test_the_mask_of_an_images_own_name_goes_before_that_of_its_key(
    tmp_path: Path, voc: Vocabulary, save_image, exact: str
) -> None:
    save_image("images/a.b.jpg")
    save_image("masks/a_b.png", 8, mode="L")
    save_image(f"masks/{exact}", 7, mode="L")
    source = open_folder(tmp_path / "images", voc, masks=str(tmp_path / "masks"), labels="none")
    assert (source.ground_truth(source.entries[0]).labels == 7).all()
