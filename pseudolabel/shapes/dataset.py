"""The Shapes data set: scenes of the procedural world written to disk in VOC's layout."""

import io
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.errors import SourceError
from pseudolabel.io.images import mask_image
from pseudolabel.shapes.difficulty import DIFFICULTIES, Name
from pseudolabel.shapes.world import Scene, caption, draw_scene
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

MARKER = "shapes.json"
LABEL_FILE = "image_labels.json"
CAPTION_FILE = "captions.jsonl"
JPEG_QUALITY = 95
SPLITS = ("train", "val")

_FORMAT = "pseudolabel shapes 2"
_EASY_FORMAT = "pseudolabel shapes 1"  # of versions that knew no other difficulty
_UNFINISHED = ".unfinished-"
_LISTS = "ImageSets/Segmentation"
_PLACES = {"jpg": "JPEGImages", "png": "SegmentationClass", "xml": "Annotations"}


@dataclass(frozen=True)
class Plan:
    """Numbers of scenes, their seed and how hard they are, as in the marker file."""

    train: int
    val: int
    seed: int
    difficulty: Name = "easy"

    def __str__(self) -> str:
        return f"{self.train} train, {self.val} val, seed {self.seed}, {self.difficulty}"

    def scenes(self) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
        """Split, id and seed of every scene.

        Numbers start at 1: numpy pads seeds with zeros, so [seed, split, 0] would equal [seed, split], a scene from
        the shipped model's training.
        """
        for split_number, (split, count) in enumerate(zip(SPLITS, (self.train, self.val), strict=True)):
            for number in range(1, count + 1):
                yield split, f"{split}_{number:06d}", (self.seed, split_number, number)


def write_shapes(
    out: Path,
    train: int,
    val: int,
    seed: int,
    difficulty: Name = "easy",
    on_scene: Callable[[int, int], None] | None = None,
) -> None:
    """Write a Shapes data set; equal arguments give equal bytes.

    The folder holds JPEGImages, SegmentationClass, Annotations, the lists train, val and trainval in
    ImageSets/Segmentation, `image_labels.json` (id to class names) and `captions.jsonl` (one sentence per image and
    class). The lists are written last, so an interrupted run leaves none; another run writes the missing files. No
    existing file is overwritten.

    Args:
        out: an empty or missing folder, or one with the same data set, which is completed.
        train: number of scenes of the train split.
        val: number of scenes of the val split.
        seed: of the scenes; no seed gives a scene from the shipped model's training.
        difficulty: of the scenes; a key of `DIFFICULTIES`.
        on_scene: called after each scene with the number of finished scenes and the total.

    Raises:
        SourceError: if the folder holds anything else or cannot be written, or the numbers make no scene.
    """
    if min(train, val, seed) < 0 or train + val == 0:
        raise SourceError(f"cannot write {train} train and {val} val scenes of seed {seed}; give numbers of at least 0")
    plan, out = Plan(train, val, seed, difficulty), out.expanduser()
    try:
        _claim(out, plan)
        _write_scenes(out, plan, on_scene)
    except OSError as error:
        raise SourceError(f"'{out}' cannot be written: {error.strerror or error}; choose another `out`") from error


def _claim(out: Path, plan: Plan) -> None:
    """Write the marker before all other files, so that an interrupted run can resume; or compare an existing one.

    Raises:
        SourceError: if the folder holds another data set, or other files.
    """
    if not out.exists() or (out.is_dir() and not _names(out)):
        out.mkdir(parents=True, exist_ok=True)
        _write_file(out / MARKER, (json.dumps({"format": _FORMAT, **vars(plan)}) + "\n").encode())
    elif (before := _read_marker(out)) != plan:
        raise SourceError(f"'{out}' holds another Shapes data set ({before}); choose another `out`, or remove it")
    for folder in (_LISTS, *_PLACES.values()):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _names(out: Path) -> list[str]:
    return [name for name in os.listdir(out) if not name.startswith(_UNFINISHED)]


def _write_file(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        SourceError: if the file exists with other bytes.
    """
    if os.path.lexists(path):
        if path.is_file() and path.read_bytes() == data:
            return
        raise SourceError(
            f"'{path}' differs from this data set's file and is not overwritten; choose another `out`, or move it"
        )
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _read_marker(out: Path) -> Plan:
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if marker.pop("format") == _EASY_FORMAT:
            marker["difficulty"] = "easy"
        numbers = [marker[name] for name in ("train", "val", "seed")]
        if any(type(number) is not int for number in numbers) or marker["difficulty"] not in DIFFICULTIES:
            raise ValueError("another format")
        return Plan(**marker)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"'{out}' is not a Shapes data set; choose another `out`, a new or empty folder") from error


def _write_scenes(out: Path, plan: Plan, on_scene: Callable[[int, int], None] | None) -> None:
    vocabulary = load_vocabulary("shapes")
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    labels: dict[str, list[str]] = {}
    captions: list[dict[str, str]] = []
    for done, (split, name, seed) in enumerate(plan.scenes(), 1):
        scene = draw_scene(np.random.default_rng(seed), difficulty=DIFFICULTIES[plan.difficulty])
        _write_scene(out, name, scene, vocabulary)
        lists[split].append(name)
        labels[name] = [vocabulary.names[index] for index in scene.classes]
        captions += _captions(name, labels[name], scene.background)
        if on_scene is not None:
            on_scene(done, plan.train + plan.val)
    _write_file(out / LABEL_FILE, (json.dumps(labels, indent=1) + "\n").encode())
    _write_file(out / CAPTION_FILE, "".join(json.dumps(row) + "\n" for row in captions).encode())
    lists["trainval"] = lists["train"] + lists["val"]
    for split, names in lists.items():
        _write_file(out / _LISTS / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())


def _write_scene(out: Path, name: str, scene: Scene, vocabulary: Vocabulary) -> None:
    contents = {
        "jpg": _encode(scene.image, "JPEG", quality=JPEG_QUALITY),
        "png": _encode(mask_image(scene.labels), "PNG"),
        "xml": _annotation(name, scene, vocabulary),
    }
    for suffix, content in contents.items():
        _write_file(out / _PLACES[suffix] / f"{name}.{suffix}", content)


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _annotation(name: str, scene: Scene, vocabulary: Vocabulary) -> bytes:
    """VOC's XML with one object per drawn shape."""
    width, height = scene.image.size
    root = ElementTree.Element("annotation")
    _add(root, folder=_PLACES["jpg"], filename=f"{name}.jpg")
    _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=1)
    for number in range(1, int(scene.objects.max()) + 1):
        rows, columns = np.nonzero(scene.objects == number)
        box = int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())
        cut = box[0] == 0 or box[1] == 0 or box[2] == width - 1 or box[3] == height - 1
        item = ElementTree.SubElement(root, "object")
        _add(item, name=vocabulary.names[scene.labels[rows[0], columns[0]]], truncated=int(cut), difficult=0)
        # VOC counts pixels from 1 and includes the last one.
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        _add(ElementTree.SubElement(item, "bndbox"), **{side: value + 1 for side, value in sides})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _add(parent: ElementTree.Element, **fields: object) -> None:
    for name, value in fields.items():
        ElementTree.SubElement(parent, name).text = str(value)


def _captions(key: str, names: list[str], background: str) -> list[dict[str, str]]:
    """A row for each class, whose caption names that class first, then the scene's other classes."""
    return [
        {
            "key": key,
            "class": name,
            "caption": caption([name, *(other for other in names if other != name)], background),
        }
        for name in names
    ]
