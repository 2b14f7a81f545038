import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import Vocabulary, voc_palette


def write_voc(root: Path, objects: dict[str, Iterable[str]], listed: str | None = None) -> Path:
    """A data set in VOC's layout: 8 x 6 images with annotations."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, classes in objects.items():
        Image.new("RGB", (8, 6)).save(root / "JPEGImages" / f"{name}.jpg")
        items = "".join(f"<object><name>{entry}</name></object>" for entry in classes)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{items}</annotation>")
    text = "".join(f"{name}\n" for name in objects) if listed is None else listed
    (root / "ImageSets/Segmentation/train.txt").write_bytes(text.encode())
    return root


def write_mask(root: Path, name: str, values: list[int], size: tuple[int, int] = (6, 8)) -> None:
    labels = np.resize(np.array(values, np.uint8), size)
    (root / "SegmentationClass").mkdir(exist_ok=True)
    mask = Image.fromarray(labels, "P")
    mask.putpalette(voc_palette().tobytes())  # without one, Pillow writes the indices with a single bit
    mask.save(root / "SegmentationClass" / f"{name}.png")


def open_voc(root: Path, vocabulary: Vocabulary, **settings: object) -> Source:
    return open_source(SourceConfig(kind="voc", path=str(root), **settings), vocabulary)


def problem_of(source: Source) -> SampleError:
    with pytest.raises(SampleError) as caught:
        source.read(source.entries[0])
    return caught.value


def test_labels_from_annotations(tmp_path: Path, voc: Vocabulary) -> None:
    source = open_voc(write_voc(tmp_path, {"b": ["person", "dog", "dog"], "a": ["tvmonitor"]}), voc)
    assert [(entry.key, entry.classes) for entry in source.entries] == [("a", (20,)), ("b", (12, 15))]
    sample = source.read(source.entries[1])
    assert (sample.key, sample.classes, sample.image.size) == ("b", (12, 15), (8, 6))
    assert sample.original == (tmp_path / "JPEGImages/b.jpg").read_bytes()


def test_difficult_objects_count_and_parts_do_not(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": []})
    (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><object><name> person\n</name><difficult>1</difficult><part><name>head</name></part></object>"
        "<object><name>car</name><truncated>1</truncated></object></annotation>"
    )
    assert open_voc(tmp_path, voc).entries[0].classes == (7, 15)


@pytest.mark.parametrize("listed", ["\ufeffb\r\n\r\na\r\n", "b  1\na -1\n", "\n  b\n\ta\t\n\n", "a\nb"])
def test_lists_as_people_write_them(tmp_path: Path, voc: Vocabulary, listed: str) -> None:
    source = open_voc(write_voc(tmp_path, {"a": ["cat"], "b": ["dog"]}, listed), voc)
    assert [entry.key for entry in source.entries] == ["a", "b"]
    assert all(source.read(entry).classes for entry in source.entries)


def test_ids_with_dots(tmp_path: Path, voc: Vocabulary) -> None:
    write_mask(write_voc(tmp_path, {"img.rf.1": ["cat"]}), "img.rf.1", [0, 8])
    source = open_voc(tmp_path, voc)
    assert source.entries[0].key == "img_rf_1"
    assert source.read(source.entries[0]).image.size == (8, 6)
    truth = source.ground_truth(source.entries[0], (6, 8))
    assert truth is not None
    assert truth.key == "img_rf_1"


@pytest.mark.parametrize("names", [["shape 001", "shape 002"], ["leaf (1)", "tree (1)"], ["frame.0.5", "v2.0.last"]])
@pytest.mark.parametrize("line", ["{}", "{}.jpg", "/JPEGImages/{}.jpg /SegmentationClass/{}.png", "  {}  \r"])
def test_every_form_of_list_leads_to_image_labels_and_mask(
    tmp_path: Path, voc: Vocabulary, names: list[str], line: str
) -> None:
    listed = "".join(f"{line.replace('{}', name)}\n" for name in names)
    write_voc(tmp_path, {names[0]: ["cat"], names[1]: ["dog"]}, listed)
    for name, value in zip(names, (8, 12), strict=True):
        write_mask(tmp_path, name, [0, value])
    source = open_voc(tmp_path, voc)
    assert [source.read(entry).classes for entry in source.entries] == [(8,), (12,)]
    assert [entry.classes for entry in open_voc(tmp_path, voc, labels="masks").entries] == [(8,), (12,)]


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".webp", ""])
def test_images_of_any_suffix(tmp_path: Path, voc: Vocabulary, suffix: str) -> None:
    write_mask(write_voc(tmp_path, {"v1.0": ["cat"]}), "v1.0", [8])
    path = tmp_path / "JPEGImages/v1.0.jpg"
    if suffix:
        path.rename(path.with_suffix(suffix))
    else:
        path.rename(path.with_name("v1"))
        (tmp_path / "ImageSets/Segmentation/train.txt").write_text("v1\n")
        for folder, ending in (("Annotations", "xml"), ("SegmentationClass", "png")):
            (tmp_path / folder / f"v1.0.{ending}").rename(tmp_path / folder / f"v1.{ending}")
    source = open_voc(tmp_path, voc)
    assert source.read(source.entries[0]).classes == (8,)
    assert source.ground_truth(source.entries[0]).labels.max() == 8


def test_a_list_of_which_no_image_is_there_ends_at_once(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": ["cat"]}, "b\nc\n")
    with pytest.raises(SourceError, match=r"none of the 2 images of '.*train\.txt' is in '.*JPEGImages'.*tried '.*/b'"):
        open_voc(tmp_path, voc)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    source = open_voc(tmp_path, voc, labels="none", unlabelled="background")
    with pytest.raises(SampleError, match=r"no file '.*/b\.jpg'"):
        source.read(source.entries[1])


@pytest.mark.parametrize(
    "folder", ["SegmentationClassAug", "VOC2012/SegmentationClassAug", "{root}/SegmentationClassAug"]
)
def test_masks_that_the_list_names(tmp_path: Path, voc: Vocabulary, folder: str) -> None:
    """They go before those of SegmentationClass; where their folder is not there, those of SegmentationClass count."""
    column = folder.replace("{root}", str(tmp_path))
    write_voc(tmp_path, {"a": ["cat"], "b": ["dog"]}, f"JPEGImages/a.jpg {column}/a.png\nJPEGImages/b.jpg\n")
    for name in "ab":
        write_mask(tmp_path, name, [0, 8])
    assert [entry.classes for entry in open_voc(tmp_path, voc, labels="masks").entries] == [(8,), (8,)]
    (tmp_path / "SegmentationClassAug").mkdir()
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(tmp_path / "SegmentationClassAug/a.png")
    source = open_voc(tmp_path, voc, labels="masks")
    assert [entry.classes for entry in source.entries] == [(3,), (8,)]
    own = open_voc(tmp_path, voc, labels="masks", masks=str(tmp_path / "SegmentationClass"))
    assert [entry.classes for entry in own.entries] == [(8,), (8,)]


def test_masks_in_folders_and_with_other_suffixes(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path / "data", {"a": [], "b": [], "c": []})
    for name, value in (("x/a.png", 1), ("b.TIF", 2), ("x/c.png", 3), ("y/c.png", 4)):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8), value, np.uint8)).save(tmp_path / "masks" / name)
    source = open_voc(tmp_path / "data", voc, masks=str(tmp_path / "masks"))
    a, b, c = source.entries
    assert [int(source.ground_truth(entry).labels.max()) for entry in (a, b)] == [1, 2]
    assert source.ground_truth(c) is None  # two masks of that name tell none
    assert source.lacks_ground_truth(c) == f"no ground truth for 'c': tried '{tmp_path}/masks/c.png'"
    sent = pickle.loads(pickle.dumps(source))
    assert int(sent.ground_truth(a).labels.max()) == 1


@pytest.mark.parametrize(
    "content",
    [
        '<?xml version="1.0" encoding="gb2312"?>{}'.encode("ascii"),
        '<?xml version="1.0" encoding="gb2312"?><!--路径-->{}'.encode("gb2312"),
        '<?xml version="1.0" encoding="utf-8"?><!--路径-->{}'.encode("gbk"),
        '<?xml version="1.0" encoding="shift_jis"?><!--写真-->{}'.replace("写", "真").encode("shift_jis"),
        '<?xml version="1.0" encoding="none-such"?>{}'.encode("ascii"),
        "<!--caf\xe9-->{}".encode("latin-1"),
        "\ufeff{}".encode("utf-8"),
        '<?xml version="1.0" encoding="utf-16"?>{}'.encode("utf-16"),
        b'<?xml version="1.0" encoding="utf-16"?>{}',
    ],
)
def test_annotations_in_other_or_wrong_encodings(tmp_path: Path, voc: Vocabulary, content: bytes) -> None:
    body = "<annotation><object><name>cat</name></object></annotation>"
    hole = "{}".encode("utf-16-le") if b"{\0}" in content else b"{}"
    filled = content.replace(hole, body.encode("utf-16-le" if len(hole) > 2 else "ascii"))
    write_voc(tmp_path, {"a": []})
    (tmp_path / "Annotations/a.xml").write_bytes(filled)
    assert open_voc(tmp_path, voc).entries[0].classes == (8,)


@pytest.mark.parametrize("content", [b'<?xml version="1.0" encoding="gb2312"?><a', b"\0\0\0", b"", b"\xff\xfe<a"])
def test_annotations_that_are_no_xml_are_a_failure_of_their_image(
    tmp_path: Path, voc: Vocabulary, content: bytes
) -> None:
    write_voc(tmp_path, {"a": [], "b": ["cat"]})
    (tmp_path / "Annotations/a.xml").write_bytes(content)
    source = open_voc(tmp_path, voc)
    assert problem_of(source).status == "unreadable"
    assert source.entries[1].classes == (8,)


def test_labels_from_masks(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": [], "b": []})
    write_mask(tmp_path, "a", [0, 255, 20, 3])
    write_mask(tmp_path, "b", [0, 255])
    source = open_voc(tmp_path, voc, labels="masks")
    assert [entry.classes for entry in source.entries] == [(3, 20), ()]


def test_masks_as_labels_that_are_missing_or_beyond_the_vocabulary(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": [], "b": []})
    write_mask(tmp_path, "b", [0, 21])
    missing, beyond = open_voc(tmp_path, voc, labels="masks").entries
    assert missing.problem is not None
    assert missing.problem.status == "missing"
    assert beyond.problem is not None
    assert beyond.problem.status == "unknown_class"
    assert "21" in str(beyond.problem)


@pytest.mark.parametrize("labels", [{"a": ["cat"], "b": ["dog", "person"]}, {"a": [7], "b": [11, 14]}])
def test_labels_from_a_json_file(tmp_path: Path, voc: Vocabulary, labels: dict[str, list[object]]) -> None:
    write_voc(tmp_path / "data", {"a": [], "b": []})
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    source = open_voc(tmp_path / "data", voc, labels=str(tmp_path / "labels.json"))
    assert [entry.classes for entry in source.entries] == [(8,), (12, 15)]


def test_labels_from_an_npz_file(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path / "data", {"a": [], "b": []})
    np.savez(tmp_path / "labels.npz", a=np.eye(20)[7], b=np.eye(20)[0])
    source = open_voc(tmp_path / "data", voc, labels=str(tmp_path / "labels.npz"))
    assert [entry.classes for entry in source.entries] == [(8,), (1,)]


def test_an_image_that_the_label_file_leaves_out_is_bad(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path / "data", {"a": [], "b": []})
    (tmp_path / "labels.json").write_text('{"b": []}')
    source = open_voc(tmp_path / "data", voc, labels=str(tmp_path / "labels.json"), unlabelled="background")
    error = problem_of(source)
    assert error.status == "missing"
    assert "has none for 'a'" in str(error)
    assert source.read(source.entries[1]).classes == ()


def test_a_label_file_of_another_data_set_is_an_error(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path / "data", {"a": []})
    (tmp_path / "labels.json").write_text('{"z": ["cat"]}')
    with pytest.raises(SourceError, match="labels none of the images: it has 'z', and the images are 'a'"):
        open_voc(tmp_path / "data", voc, labels=str(tmp_path / "labels.json"))


def test_unknown_names_are_problems_of_their_image_alone(tmp_path: Path, voc: Vocabulary) -> None:
    source = open_voc(write_voc(tmp_path, {"a": ["cat", "hors"], "b": ["dog"]}), voc)
    error = problem_of(source)
    assert error.status == "unknown_class"
    assert "did you mean 'horse'" in str(error)
    assert "a.xml" in str(error)
    assert source.read(source.entries[1]).classes == (12,)


@pytest.mark.parametrize(("content", "status"), [(None, "missing"), (b"<annotation>", "unreadable")])
def test_broken_annotations_are_problems(tmp_path: Path, voc: Vocabulary, content: bytes | None, status: str) -> None:
    write_voc(tmp_path, {"a": ["cat"]})
    annotation = tmp_path / "Annotations/a.xml"
    if content is None:
        annotation.unlink()
    else:
        annotation.write_bytes(content)
    error = problem_of(open_voc(tmp_path, voc))
    assert error.status == status
    assert "a.xml" in str(error)


def test_ground_truth(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": ["cat"], "b": ["cat"]})
    assert not open_voc(tmp_path, voc).has_ground_truth
    write_mask(tmp_path, "a", [0, 8, 255])
    source = open_voc(tmp_path, voc)
    assert source.has_ground_truth
    truth = source.ground_truth(source.entries[0])
    assert truth is not None
    assert set(np.unique(truth.labels)) == {0, 8, 255}
    assert source.ground_truth(source.entries[1]) is None


def test_masks_from_elsewhere(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path / "data", {"a": ["cat"]})
    write_mask(tmp_path / "data", "a", [0, 8])
    write_mask(tmp_path, "a", [0, 9])
    source = open_voc(tmp_path / "data", voc, masks=str(tmp_path / "SegmentationClass"), labels="masks")
    assert source.entries[0].classes == (9,)
    truth = source.ground_truth(source.entries[0])
    assert truth is not None
    assert truth.labels.max() == 9
    with pytest.raises(SourceError, match="nowhere' of masks"):
        open_voc(tmp_path / "data", voc, masks=str(tmp_path / "nowhere"))


def test_a_repeated_id_names_both_lines(tmp_path: Path, voc: Vocabulary) -> None:
    write_voc(tmp_path, {"a": ["cat"], "b": ["cat"]}, "a\nb\n\na\n")
    with pytest.raises(SourceError, match=r"'a' is listed twice: .*train\.txt line 1 and .*train\.txt line 4"):
        open_voc(tmp_path, voc)


def test_a_list_of_ones_own(tmp_path: Path, voc: Vocabulary) -> None:
    """Such as the subset VOC-C, whose list does not come with VOC."""
    write_voc(tmp_path / "data", {"a": ["cat"], "b": ["dog"], "c": ["cow"]})
    (tmp_path / "vocc.txt").write_text("c\na\n")
    source = open_voc(tmp_path / "data", voc, split=str(tmp_path / "vocc.txt"))
    assert [entry.key for entry in source.entries] == ["a", "c"]
    with pytest.raises(SourceError, match=r"no file 'absent\.txt'; `source\.split` can be train, or the path"):
        open_voc(tmp_path / "data", voc, split="absent.txt")


def test_missing_parts_of_the_layout(tmp_path: Path, voc: Vocabulary) -> None:
    with pytest.raises(SourceError, match=r"no folder '.*JPEGImages'; `source\.path` needs"):
        open_voc(tmp_path, voc)
    write_voc(tmp_path / "data", {"a": ["cat"]})
    with pytest.raises(SourceError, match=r"no file '.*val\.txt'; `source\.split` can be train"):
        open_voc(tmp_path / "data", voc, split="val")
    with pytest.raises(SourceError, match=r"'nonsense' cannot be read; set `source\.labels`"):
        open_voc(tmp_path / "data", voc, labels="nonsense")
    with pytest.raises(SourceError, match=r"has no masks to take labels from; .*`source\.masks`"):
        open_voc(tmp_path / "data", voc, labels="masks")
    (tmp_path / "data/Annotations/a.xml").unlink()
    (tmp_path / "data/Annotations").rmdir()
    with pytest.raises(SourceError, match=r"no folder '.*Annotations'; .*`source\.labels` masks"):
        open_voc(tmp_path / "data", voc)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_sample_of_voc(voc_sample: Path, voc: Vocabulary, split: str) -> None:
    """The sample's names, its masks and, where they lie beside it, the 0-based lists all tell the same labels."""
    from_file = open_voc(voc_sample, voc, split=split, labels=str(voc_sample / "image_labels.json"))
    from_masks = open_voc(voc_sample, voc, split=split, labels="masks")
    assert len(from_file.entries) == 40
    classes = {entry.key: entry.classes for entry in from_file.entries}
    assert classes == {entry.key: entry.classes for entry in from_masks.entries}
    indices = voc_sample.parent / "voc12_lists/image_labels.json"
    if indices.is_file():
        source = open_voc(voc_sample, voc, split=split, labels=str(indices))
        assert classes == {entry.key: entry.classes for entry in source.entries}
    for entry in from_file.entries:
        sample = from_file.read(entry)
        truth = from_file.ground_truth(entry, (sample.image.height, sample.image.width))
        assert truth is not None
        assert {*np.unique(truth.labels)} - {0, 255} == set(sample.classes)
