import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError
from pseudolabel.shapes.dataset import Plan, write_shapes
from pseudolabel.shapes.difficulty import DIFFICULTIES
from pseudolabel.shapes.world import SIZE, caption, draw_scene
from pseudolabel.sources.source import open_source
from pseudolabel.vocabulary import load_vocabulary, voc_palette
from tests.mounts import mounted_tmpfs, remount

SHAPES = load_vocabulary("shapes")
TRAINING_SCENES = 12_000  # what scripts/train_shapes_diffusion.py draws, from default_rng([seed, number])


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(out, train=6, val=3, seed=0)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("split", "count"), [("train", 6), ("val", 3), ("trainval", 9)])
@pytest.mark.parametrize("labels", ["xml", "masks", "image_labels.json"])
def test_labels_agree_with_the_masks(shapes: Path, split: str, count: int, labels: str) -> None:
    if labels.endswith("json"):
        labels = str(shapes / labels)
    source = open_source(SourceConfig(path=str(shapes), split=split, labels=labels), SHAPES)
    assert len(source.entries) == count
    for entry in source.entries:
        sample = source.read(entry)
        truth = source.ground_truth(entry, (SIZE, SIZE))
        assert truth is not None
        assert sample.original is not None
        assert sample.classes == tuple(int(value) for value in np.unique(truth.labels) if value)


def test_files_hold_the_drawn_scenes(shapes: Path) -> None:
    scene = draw_scene(np.random.default_rng([0, 1, 3]))
    with Image.open(shapes / "SegmentationClass/val_000003.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), scene.labels)
        stored = np.array(mask.getpalette(), np.uint8).reshape(-1, 3)
        np.testing.assert_array_equal(stored, voc_palette()[: len(stored)])
        assert len(stored) > scene.labels.max()
    with Image.open(shapes / "JPEGImages/val_000003.jpg") as image:
        difference = np.asarray(image).astype(int) - np.asarray(scene.image)
        assert image.mode == "RGB"
        assert np.abs(difference).mean() < 6


def test_boxes_are_tight(shapes: Path) -> None:
    boxes = 0
    for path in sorted((shapes / "Annotations").glob("*.xml")):
        labels = np.asarray(Image.open(shapes / "SegmentationClass" / f"{path.stem}.png"))
        annotation = ElementTree.parse(path).getroot()
        assert annotation.findtext("filename") == f"{path.stem}.jpg"
        assert annotation.findtext("size/width") == str(SIZE)
        objects = annotation.findall("object")
        assert len(objects) == len(set(np.unique(labels)) - {0})
        for item in objects:
            # A scene's objects are of distinct classes, so the class's pixels are the object's.
            rows, columns = np.nonzero(labels == SHAPES.index(item.findtext("name") or ""))
            expected = [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
            assert [int(item.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")] == expected
            assert item.findtext("truncated") == str(int(min(expected) == 1 or max(expected) == SIZE))
            boxes += 1
    assert boxes >= 9


def test_captions_name_their_class_first(shapes: Path) -> None:
    labels = json.loads((shapes / "image_labels.json").read_text())
    rows = [json.loads(line) for line in (shapes / "captions.jsonl").read_text().splitlines()]
    assert [(row["key"], row["class"]) for row in rows] == [(key, name) for key in labels for name in labels[key]]
    assert max(map(len, labels.values())) > 1
    for row in rows:
        others = [name for name in labels[row["key"]] if name != row["class"]]
        background = row["caption"].rpartition(" ")[2]
        assert row["caption"] == caption([row["class"], *others], background)


def test_lists_name_the_splits(shapes: Path) -> None:
    lists = {path.stem: path.read_text().split() for path in (shapes / "ImageSets/Segmentation").glob("*.txt")}
    assert lists["train"] == [f"train_{number:06d}" for number in range(1, 7)]
    assert lists["val"] == [f"val_{number:06d}" for number in range(1, 4)]
    assert lists["trainval"] == lists["train"] + lists["val"]


def test_the_difficulty_is_part_of_a_data_set(tmp_path: Path) -> None:
    write_shapes(tmp_path / "easy", train=0, val=2, seed=0)
    write_shapes(tmp_path / "standard", train=0, val=2, seed=0, difficulty="standard")
    with pytest.raises(SourceError, match=r"another Shapes data set \(0 train, 2 val, seed 0, standard\)"):
        write_shapes(tmp_path / "standard", train=0, val=2, seed=0)
    image = "JPEGImages/val_000001.jpg"
    assert digests(tmp_path / "easy")[image] != digests(tmp_path / "standard")[image]
    scene = draw_scene(np.random.default_rng([0, 1, 1]), difficulty=DIFFICULTIES["standard"])
    with Image.open(tmp_path / "standard/SegmentationClass/val_000001.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), scene.labels)


def test_a_set_of_an_earlier_version_is_easy(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=0, val=1, seed=0)
    before = digests(tmp_path)
    old = '{"format": "pseudolabel shapes 1", "train": 0, "val": 1, "seed": 0}\n'
    (tmp_path / "shapes.json").write_text(old)
    write_shapes(tmp_path, train=0, val=1, seed=0)
    assert {**digests(tmp_path), "shapes.json": before["shapes.json"]} == before
    with pytest.raises(SourceError, match="seed 0, easy"):
        write_shapes(tmp_path, train=0, val=1, seed=0, difficulty="standard")


def test_equal_seeds_give_equal_bytes(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", train=6, val=3, seed=0)
    assert digests(tmp_path / "again") == digests(shapes)
    write_shapes(tmp_path / "other", train=1, val=0, seed=1)
    image = "JPEGImages/train_000001.jpg"
    assert digests(tmp_path / "other")[image] != digests(shapes)[image]


def test_longer_sets_begin_with_shorter_ones(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path, train=2, val=1, seed=0)
    images = {name: digest for name, digest in digests(tmp_path).items() if name.startswith("JPEGImages")}
    assert len(images) == 3
    assert images.items() <= digests(shapes).items()


def test_scenes_are_not_in_the_training_set() -> None:
    """Compares generators, since numpy pads seeds with zeros: [0, 1, 0] draws the training scene [0, 1]."""

    def state(seed: tuple[int, ...]) -> bytes:
        return np.random.SeedSequence(seed).generate_state(4, np.uint64).tobytes()

    assert state((0, 1, 0)) == state((0, 1))
    trained = {state((0, number)) for number in range(TRAINING_SCENES)}
    written = [state(seed) for data_seed in (0, 1) for _, _, seed in Plan(2000, 2000, data_seed).scenes()]
    assert len(set(written)) == 8000
    assert trained.isdisjoint(written)


def test_a_rerun_completes_the_set_and_overwrites_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_shapes(data, train=2, val=1, seed=0)
    before = digests(data)
    (data / "notes.txt").write_text("mine")
    (data / "Annotations/train_000002.xml").unlink()
    write_shapes(data, train=2, val=1, seed=0)
    assert digests(data) == {**before, "notes.txt": hashlib.sha256(b"mine").hexdigest()}


@pytest.mark.parametrize("name", ["ImageSets/Segmentation/train.txt", "SegmentationClass/train_000001.png"])
def test_changed_files_are_not_overwritten(tmp_path: Path, name: str) -> None:
    write_shapes(tmp_path, train=1, val=1, seed=0)
    (tmp_path / name).write_bytes(b"mine")
    before = digests(tmp_path)
    with pytest.raises(SourceError, match=rf"{name}' differs from this data set's file.*another `out`"):
        write_shapes(tmp_path, train=1, val=1, seed=0)
    assert digests(tmp_path) == before


def test_another_set_is_not_overwritten(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=1, val=1, seed=0)
    before = digests(tmp_path)
    with pytest.raises(
        SourceError, match=r"another Shapes data set \(1 train, 1 val, seed 0, easy\); choose another `out`"
    ):
        write_shapes(tmp_path, train=2, val=1, seed=0)
    assert digests(tmp_path) == before


class Killed(Exception):
    pass


def test_a_killed_run_leaves_no_list_and_resumes(tmp_path: Path) -> None:
    def kill(done: int, _: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        write_shapes(tmp_path / "data", train=3, val=1, seed=1, on_scene=kill)
    with pytest.raises(SourceError, match=r"no file '.*train\.txt'"):
        open_source(SourceConfig(path=str(tmp_path / "data")), SHAPES)
    write_shapes(tmp_path / "data", train=3, val=1, seed=1)
    write_shapes(tmp_path / "fresh", train=3, val=1, seed=1)
    assert digests(tmp_path / "data") == digests(tmp_path / "fresh")


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_shapes(tmp_path, train=2, val=1, seed=0, on_scene=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


MARKED = '{"format": "%s", "train": %s, "val": 1, "seed": 0}'


@pytest.mark.parametrize(
    "marker", [None, "{", "[]", "{}", MARKED % ("other", 1), MARKED % ("pseudolabel shapes 1", '"1"')]
)
def test_other_folders_are_not_touched(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    if marker is not None:
        (tmp_path / "shapes.json").write_text(marker)
    before = digests(tmp_path)
    with pytest.raises(SourceError, match="is not a Shapes data set"):
        write_shapes(tmp_path, train=1, val=1, seed=0)
    assert digests(tmp_path) == before


def test_a_full_disk_is_reported_and_the_run_resumes(tmp_path: Path) -> None:
    write_shapes(tmp_path / "fresh", train=12, val=1, seed=0)
    with mounted_tmpfs(tmp_path / "disk", "size=64k"):
        with pytest.raises(SourceError, match="cannot be written: No space left"):
            write_shapes(tmp_path / "disk/data", train=12, val=1, seed=0)
        remount(tmp_path / "disk", "size=8m")
        write_shapes(tmp_path / "disk/data", train=12, val=1, seed=0)
        assert digests(tmp_path / "disk/data") == digests(tmp_path / "fresh")


def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    with (
        mounted_tmpfs(tmp_path, "ro"),
        pytest.raises(SourceError, match=r"cannot be written: Read-only.*another `out`"),
    ):
        write_shapes(tmp_path / "data", train=1, val=1, seed=0)


def test_a_file_as_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SourceError, match="a new or empty folder"):
        write_shapes(tmp_path / "out", train=1, val=1, seed=0)


@pytest.mark.parametrize(("train", "val", "seed"), [(0, 0, 0), (-1, 2, 0), (1, -1, 0), (1, 1, -1)])
def test_invalid_numbers_are_refused(tmp_path: Path, train: int, val: int, seed: int) -> None:
    with pytest.raises(SourceError, match="give numbers of at least 0"):
        write_shapes(tmp_path / "out", train=train, val=val, seed=seed)
    assert not (tmp_path / "out").exists()
