import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.experiment_file import load_experiment
from pseudolabel.sources.source import Source, open_source
from pseudolabel.vocabulary import ClassEntry, Vocabulary, load_vocabulary
from tests.plain.data_sets import COCO_CATEGORIES

SIZE = (30, 40)
PERSON, BICYCLE, TOOTHBRUSH = 1, 2, 90


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: np.ndarray, compressed: bool) -> dict[str, Any]:
    """Run lengths as COCO's crowds have them, or in the compressed text of its tools."""
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    edges = [*np.flatnonzero(np.diff(mask.T.ravel(), prepend=False)), mask.size]
    return {"size": list(mask.shape), "counts": text if compressed else np.diff([0, *edges]).tolist()}


def write(root: Path, objects: dict[str, list[tuple[int, int, Any]]], images: str = "val2017") -> Path:
    """Images of 40 x 30 and instances_val2017.json with (category, iscrowd, segmentation) of each object."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    numbers = {name: 100 + place for place, name in enumerate(objects)}
    for name in objects:
        Image.new("RGB", SIZE[::-1]).save(root / images / f"{name}.jpg")
    annotations = [
        {"image_id": numbers[name], "category_id": category, "iscrowd": crowd, "segmentation": outline}
        for name, found in objects.items()
        for category, crowd, outline in found
    ]
    data = {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for name, number in numbers.items()
        ],
        "annotations": [{"id": place, "area": 1, "bbox": [], **item} for place, item in enumerate(annotations, 1)],
        "categories": [{"supercategory": "", "id": number, "name": name} for number, name in COCO_CATEGORIES.items()],
    }
    (root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    return root


THINGS = Vocabulary("things", tuple(ClassEntry(name, name) for name in COCO_CATEGORIES.values()))


def open_coco(root: Path, vocabulary: Vocabulary = THINGS, **settings: Any) -> Source:
    config = SourceConfig(**{"kind": "coco_object", "path": str(root), "split": "val2017", **settings})
    return open_source(config, vocabulary)


def drawn(source: Source, place: int = 0) -> np.ndarray:
    truth = source.ground_truth(source.entries[place], SIZE)
    assert truth.labels.dtype == np.uint8
    return truth.labels


def test_categories_become_1_to_80_in_their_order(tmp_path: Path) -> None:
    places = [(place // 10, place % 10) for place in range(80)]
    objects = [
        (category, 0, box(4 * column, 3 * row, 4 * column + 4, 3 * row + 3))
        for category, (row, column) in zip(COCO_CATEGORIES, places, strict=True)
    ]
    source = open_coco(write(tmp_path, {"000000000139": objects}))
    expected = np.zeros(SIZE, np.uint8)
    for label, (row, column) in enumerate(places, 1):
        expected[3 * row : 3 * row + 3, 4 * column : 4 * column + 4] = label
    assert np.array_equal(drawn(source), expected)
    assert source.entries[0].key == "000000000139"
    assert source.entries[0].classes == tuple(range(1, 81))


def test_the_shipped_vocabulary_has_cocos_names_in_their_order() -> None:
    assert load_vocabulary("coco").names[1:] == tuple(COCO_CATEGORIES.values())


def test_the_smaller_object_lies_on_top_whatever_the_order(tmp_path: Path) -> None:
    large, small = (PERSON, 0, box(5, 5, 25, 25)), (BICYCLE, 0, box(10, 10, 14, 14))
    source = open_coco(write(tmp_path, {"a": [large, small], "b": [small, large]}))
    expected = np.zeros(SIZE, np.uint8)
    expected[5:25, 5:25] = 1
    expected[10:14, 10:14] = 2
    assert np.array_equal(drawn(source, 0), expected)
    assert np.array_equal(drawn(source, 1), expected)


def test_of_equal_objects_the_later_lies_on_top(tmp_path: Path) -> None:
    objects = [(PERSON, 0, box(5, 5, 9, 9)), (BICYCLE, 0, box(5, 5, 9, 9))]
    assert set(np.unique(drawn(open_coco(write(tmp_path, {"a": objects}))))) == {0, 2}


@pytest.mark.parametrize("compressed", [False, True])
def test_a_crowd_is_ignored_except_where_an_object_covers_it(tmp_path: Path, compressed: bool) -> None:
    crowd = np.zeros(SIZE, bool)
    crowd[2:6, 3:30] = crowd[8:20, 0:5] = True
    objects = [(PERSON, 0, box(0, 0, 20, 15)), (BICYCLE, 1, runs(crowd, compressed))]
    source = open_coco(write(tmp_path, {"a": objects}))
    expected = np.where(crowd, 255, 0).astype(np.uint8)
    expected[0:15, 0:20] = 1
    assert np.array_equal(drawn(source), expected)
    assert source.entries[0].classes == (1, 2)
    assert open_coco(tmp_path, labels="masks").entries[0].classes == (1,)


def test_random_objects_are_drawn_as_cocos_own_tool_draws_them(tmp_path: Path) -> None:
    """Its `annToMask` for each annotation, laid over each other by a plain loop."""
    generator = np.random.default_rng(3)
    objects: list[tuple[int, int, Any]] = []
    for _ in range(12):
        angles = np.sort(generator.random(7)) * 2 * np.pi
        points = generator.uniform(0, 1, 2) * (40, 30) + generator.uniform(3, 14) * np.stack(
            [np.cos(angles), np.sin(angles)], 1
        )
        polygon = np.clip(points, 0, (40, 30)).round(2).ravel().tolist()
        objects.append((int(generator.choice(list(COCO_CATEGORIES))), 0, [polygon]))
    for compressed in (False, True):
        objects.insert(4, (PERSON, 1, runs(generator.random(SIZE) < 0.3, compressed)))
    source = open_coco(write(tmp_path, {"a": objects}))
    official = COCO(str(tmp_path / "annotations/instances_val2017.json"))
    annotations = official.loadAnns(official.getAnnIds())
    layers = [(official.annToMask(item).astype(bool), item) for item in annotations]
    expected = np.zeros(SIZE, np.uint8)
    for mask, item in layers:
        if item["iscrowd"]:
            expected[mask] = 255
    smallest = np.full(SIZE, np.inf)
    for mask, item in layers:
        if not item["iscrowd"]:
            wins = mask & (mask.sum() <= smallest)
            smallest[wins] = mask.sum()
            expected[wins] = list(COCO_CATEGORIES).index(item["category_id"]) + 1
    assert len(np.unique(expected)) > 6
    assert np.array_equal(drawn(source), expected)


def test_images_without_objects_and_workers(tmp_path: Path) -> None:
    source = open_coco(write(tmp_path, {"a": [], "b": [(TOOTHBRUSH, 0, box(0, 0, 3, 3))]}))
    sent = pickle.loads(pickle.dumps(source))
    assert [entry.classes for entry in sent.entries] == [(), (80,)]
    assert not drawn(sent).any()
    assert drawn(sent, 1).sum() == 9 * 80


def test_images_in_a_folder_of_their_own(tmp_path: Path) -> None:
    source = open_coco(write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))]}, "images/val2017"))
    assert source.read(source.entries[0]).image.size == (40, 30)


def test_categories_that_the_user_leaves_out_are_background(tmp_path: Path) -> None:
    """Also where they cover another object."""
    (tmp_path / "few.yaml").write_text("classes: [toothbrush, {name: person, synonyms: [bicycle]}]")
    objects = [(PERSON, 0, box(0, 0, 20, 20)), (BICYCLE, 0, box(5, 5, 10, 10))]
    source = open_coco(write(tmp_path / "data", {"a": objects}), load_vocabulary(str(tmp_path / "few.yaml")))
    assert source.entries[0].classes == (2,)
    assert np.count_nonzero(drawn(source) == 2) == 400 - 25
    assert np.count_nonzero(drawn(source) == 0) == 1200 - 375


def test_masks_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, {"a": []})
    (tmp_path / "mine").mkdir()
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(tmp_path / "mine/a.png")
    assert set(np.unique(drawn(open_coco(tmp_path, masks=str(tmp_path / "mine"))))) == {7}


def change(root: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    path = root / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return root


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([], "object(s) without an outline"),
        (None, "object(s) without an outline"),
        ([[1, 2, 3, 4]], "object(s) with a damaged outline"),
        ([1, 1, 5, 1, 5, 5], "object(s) with a damaged outline"),
        ({"size": [3, 4], "counts": [12]}, "object(s) with a damaged outline"),
        ([[{"x": 1}, {"y": 2}]], "object(s) with a damaged outline"),
        ([["a"] * 6], "object(s) with a damaged outline"),
    ],
)
def test_an_outline_that_makes_no_sense_drops_its_object_from_the_mask_alone(
    tmp_path: Path, outline: Any, reason: str
) -> None:
    objects = {"a": [(PERSON, 0, outline), (BICYCLE, 0, box(0, 0, 3, 3))], "b": [(PERSON, 0, outline)]}
    source = open_coco(write(tmp_path, objects))
    assert [entry.classes for entry in source.entries] == [(1, 2), (1,)]
    assert (drawn(source) == 2).sum() == (drawn(source) > 0).sum() == 9
    assert source.ground_truth(source.entries[1]) is None
    assert source.left_out.reasons == {reason: 2}
    assert str(source.left_out) == f"2 left out: 2 {reason}"


def test_masks_of_too_many_pixels(tmp_path: Path) -> None:
    write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))]})
    with pytest.raises(SampleError, match="40 x 30 pixels") as caught:
        drawn(open_coco(tmp_path, max_pixels=1199))
    assert caught.value.status == "too_large"


def test_objects_without_outlines_are_image_level_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strip(data: dict[str, Any]) -> None:
        for item in data["annotations"]:
            item.pop("iscrowd"), item.pop("segmentation")
        for item in data["images"]:
            item.pop("height"), item.pop("width")

    change(write(tmp_path, {"a": [(PERSON, 0, None), (BICYCLE, 0, None)], "b": []}), strip)
    monkeypatch.setitem(sys.modules, "pycocotools", None)  # nothing is drawn
    source = open_coco(tmp_path)
    assert [entry.classes for entry in source.entries] == [(1, 2), ()]
    assert source.read(source.entries[0]).classes == (1, 2)
    assert not source.has_ground_truth


def test_roboflows_layout(tmp_path: Path) -> None:
    """The JSON beside the images, ids as text, category 0 for all of them together."""
    write(tmp_path, {"a": [(PERSON, 0, []), (BICYCLE, 0, [])]}, "train")
    path = tmp_path / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    data["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
    for item in data["images"]:
        item["id"] = str(item["id"])
    path.rename(tmp_path / "train/_annotations.coco.json").write_text(json.dumps(data))
    source = open_coco(tmp_path, split="train")
    assert [(entry.key, entry.classes) for entry in source.entries] == [("a", (1, 2))]
    assert source.read(source.entries[0]).key == "a"


@pytest.mark.parametrize("prefix", ["val2017/", "./", "/data/coco/val2017/", "images\\"])
def test_file_names_with_folders(tmp_path: Path, prefix: str) -> None:
    def lengthen(data: dict[str, Any]) -> None:
        for item in data["images"]:
            item["file_name"] = prefix + item["file_name"]

    source = open_coco(change(write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))], "b": []}), lengthen))
    assert [source.read(entry).key for entry in source.entries if entry.classes] == ["a"]
    assert drawn(source).sum() == 9


def test_a_name_that_two_paths_share_is_neither_of_them(tmp_path: Path) -> None:
    def rename(data: dict[str, Any]) -> None:
        data["images"][0]["file_name"], data["images"][1]["file_name"] = "x/a.jpg", "y/a.jpg"

    source = open_coco(change(write(tmp_path, {"a": [], "b": [], "c": []}), rename), unlabelled="background")
    assert [entry.key for entry in source.entries] == ["c", "x/a", "y/a"]
    with pytest.raises(SampleError, match=r"no file '.*/val2017/x/a\.jpg'"):
        source.read(source.entries[1])


def test_an_image_that_is_listed_twice_has_the_objects_of_both(tmp_path: Path) -> None:
    def repeat(data: dict[str, Any]) -> None:
        data["images"] += [data["images"][0], {**data["images"][0], "id": 7}]
        data["annotations"].append({"image_id": 7, "category_id": BICYCLE, "segmentation": box(5, 5, 7, 7)})

    source = open_coco(change(write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))]}), repeat))
    assert [(entry.key, entry.classes) for entry in source.entries] == [("a", (1, 2))]
    assert drawn(source).sum() == 9 + 2 * 4
    assert source.left_out.reasons == {"image(s) listed twice": 2}


def test_two_images_of_one_id_are_failures(tmp_path: Path) -> None:
    def repeat(data: dict[str, Any]) -> None:
        data["images"][1]["id"] = data["images"][0]["id"]

    objects = {name: [(PERSON, 0, box(0, 0, 3, 3))] for name in "abc"}
    source = open_coco(change(write(tmp_path, objects), repeat))
    for entry in source.entries[:2]:
        with pytest.raises(SampleError, match=r"image 100 is '[ab]\.jpg' and '[ab]\.jpg'; give each") as caught:
            source.read(entry)
        assert caught.value.status == "two_images"
    assert source.read(source.entries[2]).classes == (1,)


def test_objects_that_belong_to_no_image_or_category_are_counted(tmp_path: Path) -> None:
    def add(data: dict[str, Any]) -> None:
        data["annotations"] += [
            {"image_id": 77, "category_id": PERSON},
            {"image_id": 100, "category_id": 1000},
            {"image_id": 100, "category_id": None},
            {"category_id": PERSON},
            None,
        ]
        data["images"] += [{"id": 5}, {"file_name": "x.jpg"}, "y.jpg"]

    source = open_coco(change(write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))]}), add))
    assert [entry.classes for entry in source.entries] == [(1,)]
    assert source.left_out.reasons == {
        "object(s) without image or category": 3,
        "image(s) without id or file_name": 3,
        "object(s) of an image not listed": 1,
        "object(s) of a category not listed": 1,
    }


def test_a_json_file_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, {"a": [(PERSON, 0, box(0, 0, 3, 3))]}, "photos/2024")
    (tmp_path / "annotations/instances_val2017.json").rename(tmp_path / "mine.json")
    for split in ("mine.json", str(tmp_path / "mine.json")):
        source = open_coco(tmp_path, split=split)
        assert [entry.key for entry in source.entries] == ["photos/2024/a"]
        assert drawn(source).sum() == 9


def test_the_shipped_experiment_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("coco_object")
    write(tmp_path / "coco", {"000000000139": [(PERSON, 0, box(0, 0, 40, 30))]})
    monkeypatch.chdir(tmp_path)
    (entry,) = (source := open_source(experiment.source, load_vocabulary(experiment.vocabulary))).entries
    assert set(np.unique(source.ground_truth(entry).labels)) == {1}
    assert source.read(entry).key == entry.key


def test_what_is_missing_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"no file '.*instances_train\.json'; unpack .*val2017 or train2017"):
        open_coco(tmp_path, split="train")
    write(tmp_path, {"a": []}, "elsewhere")
    with pytest.raises(SourceError, match=r"no folder '.*/val2017'; unpack .*/zips/val2017\.zip in `source\.path`"):
        open_coco(tmp_path)
    write(tmp_path, {"a": []})
    with pytest.raises(SourceError, match=r"no class 'aeroplane' of vocabulary 'voc'; .* `vocabulary` coco"):
        open_coco(tmp_path, load_vocabulary("voc"))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(SourceError, match=r"needs pycocotools: pip install 'pseudolabel\[coco\]'"):
        open_coco(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1", "is not JSON"),
        ("[]", "has no list 'categories'"),
        ('{"categories": [{"id": 1}], "annotations": [], "images": []}', "has the category {'id': 1}, which needs"),
        ('{"categories": [{"id": 1}]}', "has no list 'annotations'"),
        ('{"categories": [], "annotations": {}}', "has no list 'annotations'"),
        ('{"categories": [], "annotations": []}', "has no list 'images'"),
        (
            '{"categories": [], "images": [], "annotations": '
            '[{"image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": []}]}',
            "has objects of category 7, which is not among its categories",
        ),
    ],
)
def test_files_that_are_no_instances(tmp_path: Path, content: str, reason: str) -> None:
    write(tmp_path, {"a": []})
    (tmp_path / "annotations/instances_val2017.json").write_text(content)
    with pytest.raises(SourceError, match=rf"instances_val2017\.json' {reason}"):
        open_coco(tmp_path)
