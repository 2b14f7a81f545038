"""People's masks come back in every form, stay when masks are written again, and are refused where they do not fit."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

import pseudolabel as pl
from pseudolabel.config import Experiment
from pseudolabel.errors import OutputError, ShardError, SourceError
from pseudolabel.exports.labelstudio import brush_rle
from pseudolabel.io.folder import Folder
from pseudolabel.records import IGNORE
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.verify import verify
from pseudolabel.sources.brush_rle import decode_brush_rle
from pseudolabel.sources.source import open_source
from pseudolabel.stages.generate import generate
from pseudolabel.stages.label import write_labels
from pseudolabel.stages.refine import write_masks
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect, finished_units, samples

SHAPES = load_vocabulary("shapes")
Masks = dict[str, np.ndarray]


@pytest.fixture
def masks(experiment: Experiment, one_rank: Rank) -> Path:
    """Masks of five images in three shards."""
    generate(experiment, one_rank)
    return Path(experiment.out) / "masks"


def drawn(masks: Path, count: int = 3) -> Masks:
    """Masks of a person for the first images: two rectangles, one in the other."""
    found = {}
    for number, key in enumerate(sorted(samples(masks))[:count]):
        labels = np.zeros((128, 128), np.uint8)
        labels[10 : 60 + number, 20:90] = 1
        labels[30:40, 30:50] = 2
        found[key] = labels
    return found


def as_png(folder: Path, people: Masks) -> Path:
    folder.mkdir()
    for key, labels in people.items():
        Image.fromarray(labels).save(folder / f"{key}.png")
    return folder


def as_palette(folder: Path, people: Masks) -> Path:
    folder.mkdir()
    for key, labels in people.items():
        image = Image.fromarray(labels)
        image.putpalette([value for colour in range(256) for value in (0, colour, 9)])
        image.save(folder / f"{key}.png")
    return folder


def as_coco(folder: Path, people: Masks, outline: Callable[[np.ndarray, int], Any]) -> Path:
    folder.mkdir()
    images = [
        {"id": number, "file_name": f"images/{key}.jpg", "height": 128, "width": 128}
        for number, key in enumerate(people)
    ]
    annotations = [
        {
            "image_id": number,
            "iscrowd": label - 1,  # 1 for what was drawn with CVAT's brush
            "category_id": 70 + label,
            "segmentation": outline(labels, label),
        }
        for number, labels in enumerate(people.values())
        for label in (1, 2)
    ]
    categories = [{"id": 70 + label, "name": SHAPES.names[label]} for label in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def run_lengths(labels: np.ndarray, label: int) -> dict[str, Any]:
    """The outer rectangle covers the inner one, which is smaller, and so on top."""
    encoded = coco.encode(np.asfortranarray(labels >= label, np.uint8))
    return {"size": [128, 128], "counts": encoded["counts"].decode()}


def polygons(labels: np.ndarray, label: int) -> list[list[int]]:
    rows, columns = np.nonzero(labels >= label)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    return [[int(value) for value in (left, top, right, top, right, bottom, left, bottom)]]


def task(data: dict[str, Any], labels: np.ndarray) -> dict[str, Any]:
    def region(label: int) -> dict[str, Any]:
        value = {"format": "rle", "rle": list(brush_rle(labels >= label)), "brushlabels": [SHAPES.names[label]]}
        size = {"original_width": labels.shape[1], "original_height": labels.shape[0], "image_rotation": 0}
        return {
            "id": f"r{label}",
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            **size,
            "value": value,
        }

    machine = {"predictions": [{"result": [region(2)]}]}
    annotation = {"id": 1, "was_cancelled": False, "result": [region(1), region(2)]}
    return {"id": 3, "data": data, "annotations": [{"was_cancelled": True, "result": []}, annotation], **machine}


def as_label_studio(folder: Path, people: Masks) -> Path:
    folder.mkdir()
    tasks = [
        task({"image": f"/data/local-files/?d=mine/{key}.jpg"} | ({"key": key} if number else {}), labels)
        for number, (key, labels) in enumerate(people.items())
    ]
    (folder / "project-1.json").write_text(json.dumps(tasks))
    return folder / "project-1.json"


FORMS: dict[str, Callable[[Path, Masks], Path]] = {
    "PNG": as_png,
    "palette PNG": as_palette,
    "COCO, run lengths": lambda folder, people: as_coco(folder, people, run_lengths),
    "COCO, polygons": lambda folder, people: as_coco(folder, people, polygons),
    "Label Studio": as_label_studio,
}


def check_in_place(masks: Path, people: Masks) -> None:
    """People's masks are in the shards, marked and counted, and everything fits."""
    found = samples(masks)
    for key, labels in people.items():
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found[key]["png"]))), labels)
        fields = json.loads(found[key]["json"])
        assert fields["source"] == "human"
        assert fields["confidence"] == 1
        assert fields["names"] == [SHAPES.names[label] for label in np.unique(labels) if 0 < label < IGNORE]
    assert verify(Folder(str(masks))) == []
    assert json.loads((masks / "index.json").read_text())["corrected"] == len(people)
    with (masks / "scores.csv").open(newline="") as file:
        assert {row["key"] for row in csv.DictReader(file) if row["source"] == "human"} == set(people)


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS.keys())
def test_masks_of_people_come_back(write: Callable[[Path, Masks], Path], masks: Path, tmp_path: Path) -> None:
    before, units, people = samples(masks), finished_units(masks), drawn(masks)
    result = pl.correct(str(masks.parent), str(write(tmp_path / "people", people)))
    assert (result.keys, result.shards, result.refused, result.exit_status) == (tuple(people), 2, (), 0)
    check_in_place(masks, people)
    after, last = samples(masks), "masks-000002"
    assert finished_units(masks)[last] == units[last]  # not corrected
    for key, members in before.items():
        assert list(after[key]) == list(members)
        assert after[key]["jpg"] == members["jpg"]
        assert key in people or after[key] == members
    items = {item["key"]: item["mask"].numpy() for item in pl.ShardDataset(masks)}
    np.testing.assert_array_equal(items[next(iter(people))], next(iter(people.values())))


def test_the_same_masks_again_write_nothing(masks: Path, tmp_path: Path) -> None:
    people = drawn(masks)
    folder = str(as_png(tmp_path / "people", people))
    pl.correct(str(masks.parent), folder)
    state = finished_units(masks), sorted(path.name for path in (masks.parent / "corrections").iterdir())
    again = pl.correct(str(masks.parent), folder)
    assert (again.keys, again.shards) == (tuple(people), 0)
    assert (finished_units(masks), sorted(path.name for path in (masks.parent / "corrections").iterdir())) == state


def test_the_last_correction_counts(masks: Path, tmp_path: Path) -> None:
    people = drawn(masks)
    pl.correct(str(masks.parent), str(as_png(tmp_path / "first", people)))
    key = min(people)
    second = {key: np.full((128, 128), IGNORE, np.uint8)}
    second[key][:64] = 3
    pl.correct(str(masks.parent), str(as_png(tmp_path / "second", second)))
    check_in_place(masks, people | second)


def test_resume_and_refinement_keep_them(masks: Path, experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    people = drawn(masks)
    pl.correct(str(masks.parent), str(as_png(tmp_path / "people", people)))
    units = finished_units(masks)
    write_masks(experiment, one_rank)
    assert finished_units(masks) == units
    check_in_place(masks, people)

    write_masks(experiment, one_rank, retry_failed=True)
    check_in_place(masks, people)

    for path in [*(masks.parent / "cams").iterdir(), *masks.iterdir()]:
        path.unlink()
    diffsegmenter = replace(experiment.diffsegmenter, timesteps=[50])  # other CAMs, another CRF, other shards
    changed = replace(experiment, diffsegmenter=diffsegmenter, crf=replace(experiment.crf, iterations=2))
    changed = replace(changed, work=replace(changed.work, unit=3))
    write_labels(changed, one_rank)
    write_masks(changed, one_rank)
    check_in_place(masks, people)


def test_changed_cams_are_refined_again_and_keep_them(experiment: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    files = tmp_path / "cams"
    files.mkdir()
    source = open_source(experiment.source, SHAPES)
    for number, entry in enumerate(source.entries):
        maps = np.full((len(entry.classes), 128, 128), number / 9, np.float32)
        np.save(files / f"{entry.key}.npy", maps)
    pl.import_cams(experiment, folder=str(files), format="npy")
    write_masks(experiment, one_rank)
    masks = Path(experiment.out) / "masks"
    people = drawn(masks, 1)
    pl.correct(experiment.out, str(as_png(tmp_path / "people", people)))
    before, units = samples(masks), finished_units(masks)
    first, second = sorted(before)[:2]
    np.save(files / f"{second}.npy", np.ones_like(maps := np.load(files / f"{second}.npy")) - maps)
    pl.import_cams(experiment, folder=str(files), format="npy")
    write_masks(experiment, one_rank)
    assert {name for name, state in finished_units(masks).items() if state != units[name]} == {"masks-000000"}
    assert samples(masks)[first] == before[first]
    assert samples(masks)[second] != before[second]
    check_in_place(masks, people)


def test_a_run_killed_while_it_corrected_is_completed_by_refine(
    masks: Path, experiment: Experiment, one_rank: Rank, tmp_path: Path
) -> None:
    people = drawn(masks)
    pl.correct(str(masks.parent), str(as_png(tmp_path / "people", people)))
    (masks / "masks-000000.json").unlink()  # it is removed before the shard is written again
    with pytest.raises(ShardError, match="run the command that wrote them again"):
        pl.correct(str(masks.parent), str(tmp_path / "people"))
    units = finished_units(masks)
    write_masks(experiment, one_rank)
    now = finished_units(masks)
    assert {name for name in now if now[name] != units.get(name)} == {"masks-000000"}
    check_in_place(masks, people)


def test_corrections_of_other_classes_or_sizes_are_not_applied(
    masks: Path, experiment: Experiment, one_rank: Rank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = drawn(masks, 1)
    pl.correct(str(masks.parent), str(as_png(tmp_path / "people", people)))
    for folder in ("cams", "masks"):
        for path in (masks.parent / folder).iterdir():
            path.unlink()
    names = ", ".join(reversed(SHAPES.names[1:]))
    generate(replace(experiment, vocabulary=names), one_rank)
    assert f"{min(people)}: the correction is of the classes" in caplog.text
    assert "corrected" not in json.loads((masks / "index.json").read_text())
    assert "source" not in json.loads(samples(masks)[min(people)]["json"])


def test_masks_that_do_not_fit_are_listed_and_not_applied(masks: Path, tmp_path: Path) -> None:
    people = drawn(masks, 4)
    keys, before = list(people), samples(masks)
    folder = as_png(tmp_path / "people", people)
    Image.fromarray(np.zeros((128, 100), np.uint8)).save(folder / f"{keys[0]}.png")
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(folder / f"{keys[1]}.png")
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(folder / f"{keys[2]}.png")
    (folder / "of-another-set.png").write_bytes((folder / f"{keys[3]}.png").read_bytes())
    (folder / "notes.txt").write_text("")
    outcome = expect(3, call("correct", masks.parent, "--masks", folder))
    for line in (
        "of-another-set.png: unknown_key",
        f"{keys[0]}: size_mismatch",
        f"{keys[1]}: unknown_class",
        f"{keys[2]}: unreadable",
        "1 file left out: 1 .txt",
    ):
        assert f"{line}" in outcome.err
    assert outcome.last_line == f"1 masks corrected, 4 not applied; shards written: 1 -> {masks}"
    check_in_place(masks, {keys[3]: people[keys[3]]})
    assert all(samples(masks)[key] == before[key] for key in keys[:3])


def test_if_nothing_fits_nothing_changes(masks: Path, tmp_path: Path) -> None:
    state = {path.name: path.read_bytes() for path in masks.iterdir()}
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "x.png").write_bytes(b"")
    result = pl.correct(str(masks.parent), str(folder))
    assert (result.keys, result.exit_status) == ((), 3)
    assert not (masks.parent / "corrections").exists()
    assert {name: (masks / name).read_bytes() for name in state} == state


def test_annotations_that_do_not_fit(masks: Path, tmp_path: Path) -> None:
    people = drawn(masks, 5)
    keys = list(people)
    tasks = [task({"key": key}, labels) for key, labels in people.items()]
    tasks[0]["annotations"][1]["result"][0]["value"]["brushlabels"] = ["unicorn"]
    tasks[1]["annotations"][1]["result"][0]["type"] = "polygonlabels"
    tasks[2]["annotations"] *= 2
    tasks[3]["annotations"][1]["result"][0]["original_width"] = 64
    tasks[4]["annotations"] = []
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    result = pl.correct(str(masks.parent), str(path))
    assert {one.key: one.status for one in result.refused} == {
        keys[0]: "unknown_class",
        keys[1]: "unreadable",
        keys[2]: "several_annotations",
        keys[3]: "size_mismatch",
    }
    assert str(result.left_out) == "1 left out: 1 image(s) without an annotation"

    folder = as_coco(tmp_path / "coco", people, run_lengths)
    content = json.loads((folder / "instances.json").read_text())
    content["images"][0]["height"] = 64
    content["annotations"][2]["segmentation"] = [[1, 2]]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 2]
    content["categories"].append({"id": 99, "name": "unicorn"})
    content["annotations"][-1]["category_id"] = 99
    (folder / "instances.json").write_text(json.dumps(content))
    result = pl.correct(str(masks.parent), str(folder))
    assert {one.key: one.status for one in result.refused} == {
        keys[0]: "size_mismatch",
        keys[1]: "unreadable",
        keys[2]: "empty",
        keys[4]: "unknown_class",
    }
    assert result.keys == (keys[3],)


def test_what_is_no_run_or_no_mask(masks: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no complete masks"):
        pl.correct(str(tmp_path), str(tmp_path))
    with pytest.raises(SourceError, match="no file or folder"):
        pl.correct(str(masks.parent), str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no \.png and no \.json"):
        pl.correct(str(masks.parent), str(tmp_path / "empty"))
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(SourceError, match="task 1 is no task of Label Studio"):
        pl.correct(str(masks.parent), str(tmp_path / "x.json"))


def test_colours_that_do_not_fit(masks: Path, tmp_path: Path) -> None:
    keys = sorted(samples(masks))
    folder = tmp_path / "SegmentationClass"
    folder.mkdir()
    Image.new("RGB", (128, 128), (1, 2, 3)).save(folder / f"{keys[0]}.png")
    Image.new("RGB", (128, 128), (4, 5, 6)).save(folder / f"{keys[1]}.png")
    Image.new("RGB", (128, 120), (4, 5, 6)).save(folder / f"{keys[2]}.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nunicorn:4,5,6::\n")
    result = pl.correct(masks.parent, tmp_path)
    assert [one.status for one in result.refused] == ["unknown_class", "unknown_class", "size_mismatch"]
    assert "#010203" in result.refused[0].message
    assert "'unicorn'" in result.refused[1].message
    (tmp_path / "labelmap.txt").write_text("unicorn\n")
    with pytest.raises(SourceError, match="the line 'unicorn'"):
        pl.correct(masks.parent, tmp_path)


def test_a_shard_changed_by_hand_is_kept(masks: Path, tmp_path: Path) -> None:
    shard, people = masks / "masks-000000.tar", as_png(tmp_path / "people", drawn(masks, 1))
    changed = bytearray(shard.read_bytes())
    changed[1000] ^= 1  # inside an image
    shard.write_bytes(changed)
    with pytest.raises(OutputError, match=r"masks-000000\.tar' was changed"):
        pl.correct(str(masks.parent), str(people))
    assert shard.read_bytes() == changed


def test_imported_masks_are_corrected_too(experiment: Experiment, tmp_path: Path) -> None:
    truth = f"{experiment.source.path}/SegmentationClass"
    pl.import_masks(experiment, folder=truth)
    masks = Path(experiment.out) / "masks"
    people = drawn(masks, 2)
    pl.correct(experiment.out, str(as_png(tmp_path / "people", people)))
    pl.import_masks(experiment, folder=truth)
    check_in_place(masks, people)
    for path in masks.iterdir():
        path.unlink()
    pl.import_masks(experiment, folder=truth)
    check_in_place(masks, people)


def read_masks(masks: Path) -> Masks:
    return {key: np.array(Image.open(io.BytesIO(members["png"]))) for key, members in samples(masks).items()}


def paint_pngs(folder: Path) -> tuple[Path, Masks]:
    """A person paints a square into each mask."""
    people = {}
    for path in sorted((folder / "masks").glob("*.png")):
        labels = np.array(Image.open(path))
        labels[:9, :9] = 2
        Image.fromarray(labels).save(path)
        people[path.stem] = labels
    return folder / "masks", people


def paint_cvat(folder: Path) -> tuple[Path, Masks]:
    """With the colours of `labelmap.txt`; SegmentationObject stays, as it is not read."""
    lines = [line.split(":") for line in (folder / "labelmap.txt").read_text().splitlines()[1:]]
    colours = {name: tuple(map(int, colour.split(","))) for name, colour, *_ in lines}
    people = {}
    for path in sorted((folder / "SegmentationClass").glob("*.png")):
        image = np.array(Image.open(path).convert("RGB"))
        image[:9, :9] = colours[SHAPES.names[2]]
        Image.fromarray(image).save(path)
        labels = np.zeros(image.shape[:2], np.uint8)
        for name, colour in colours.items():
            label = {"background": 0, "ignore": IGNORE}.get(name)
            label = SHAPES.index(name) if label is None else label
            labels[(image == colour).all(-1)] = label
        people[path.stem] = labels
    return folder, people


def paint_coco(folder: Path) -> tuple[Path, Masks]:
    path = folder / "annotations" / "instances.json"
    content, people = json.loads(path.read_text()), {}
    square = [[0, 0, 9, 0, 9, 9, 0, 9]]
    for image in content["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for one in content["annotations"]:
            if one["image_id"] == image["id"]:
                labels[coco.decode(one["segmentation"]).astype(bool)] = one["category_id"]
        labels[:9, :9] = 2
        content["annotations"].append({"image_id": image["id"], "category_id": 2, "segmentation": square})
        people[image["file_name"].removesuffix(".jpg")] = labels
    path.write_text(json.dumps(content))
    return path, people


def paint_label_studio(folder: Path) -> tuple[Path, Masks]:
    """The predictions become an annotation, with one more stroke."""
    people = {}
    for path in (folder / "tasks").glob("*.json"):
        tasks = json.loads(path.read_text())
        for one in tasks:
            result = one["predictions"][0]["result"]
            labels = np.zeros((128, 128), np.uint8)
            for region in result:
                stroke = decode_brush_rle(region["value"]["rle"], 128, 128)
                labels[stroke] = SHAPES.index(region["value"]["brushlabels"][0])
            labels[:9, :9] = 2
            value = {"format": "rle", "rle": list(brush_rle(labels == 2)), "brushlabels": [SHAPES.names[2]]}
            size = {"original_width": 128, "original_height": 128}
            one["annotations"] = [{"result": [*result, {"type": "brushlabels", **size, "value": value}]}]
            people[one["data"]["key"]] = labels
        path.write_text(json.dumps(tasks))
    return folder / "tasks", people


@pytest.mark.parametrize(
    ("to", "paint"),
    [("png", paint_pngs), ("cvat", paint_cvat), ("coco", paint_coco), ("labelstudio", paint_label_studio)],
)
def test_the_least_sure_masks_go_out_and_come_back(
    to: Any, paint: Callable[[Path], tuple[Path, Masks]], masks: Path, tmp_path: Path
) -> None:
    pl.export(masks.parent, to=to, folder=tmp_path / "people", worst=3, ignore=IGNORE if to == "cvat" else None)
    given, people = paint(tmp_path / "people")
    assert len(people) == 3
    before = read_masks(masks)
    assert pl.correct(str(masks.parent), str(given)).exit_status == 0
    check_in_place(masks, people)
    after = read_masks(masks)
    assert all(np.array_equal(after[key], before[key]) for key in before.keys() - people.keys())
    pl.export(masks.parent, to="png", folder=tmp_path / "next", worst=2)
    assert {path.stem for path in (tmp_path / "next" / "masks").glob("*.png")} == before.keys() - people.keys()
