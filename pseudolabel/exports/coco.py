"""`coco`: instances in COCO's JSON."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pseudolabel.exports.format import Collected, Encoded, Format, Settings
from pseudolabel.exports.outlines import connected_pieces, trace
from pseudolabel.exports.sample import MaskSample
from pseudolabel.records import BACKGROUND

if TYPE_CHECKING:
    from pseudolabel.exports.format import Classes

LEAST_IOU = 0.98  # of outlines with their instance; below it run lengths are written


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`images/KEY.jpg`, and the instances of the sample as its note."""
    instances = [
        {"category_id": label, **describe(instance, settings.polygons)}
        for label in sample.classes
        for instance in _instances(sample.labels == label, settings.pieces)
    ]
    height, width = sample.labels.shape
    note = {"file_name": f"{sample.key}.jpg", "height": height, "width": width, "instances": instances}
    return Encoded({f"images/{sample.name}.jpg": sample.image}, note)


def _instances(mask: np.ndarray, pieces: bool) -> list[np.ndarray]:
    return connected_pieces(mask) if pieces else [mask]


def describe(mask: np.ndarray, polygons: bool) -> dict[str, Any]:
    """Area, box and segmentation of an instance, bool (H, W)."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    outlines = _polygons(mask, encoded) if polygons else None
    return {
        "iscrowd": 0,
        "area": int(coco.area(encoded)),
        "bbox": [float(value) for value in coco.toBbox(encoded)],
        "segmentation": outlines or {"size": list(mask.shape), "counts": encoded["counts"].decode()},
    }


def _polygons(mask: np.ndarray, encoded: dict[str, Any]) -> list[list[int]] | None:
    """The outlines of an instance; None where it has holes, which they cannot tell, or they do not fit."""
    from pycocotools import mask as coco

    loops = trace(mask)
    if any(loop.is_hole for loop in loops):
        return None
    outlines = [loop.corners[:, ::-1].ravel().tolist() for loop in loops]
    filled = coco.merge(coco.frPyObjects(outlines, *mask.shape))
    return outlines if coco.iou([filled], [encoded], [0])[0, 0] >= LEAST_IOU else None


def finish(collected: Collected, settings: Settings) -> None:
    """`annotations/instances_SPLIT.json`, or `annotations/instances.json` where there are no splits."""
    for split in settings.splits:
        with collected.write(f"annotations/instances{f'_{split}' if split else ''}.json") as file:
            categories = json.dumps(_categories(settings.classes), ensure_ascii=False)
            file.write(f'{{"info": {{"description": "pseudo-masks"}}, "categories": {categories},\n'.encode())
            file.write(b'"images": [')
            _write_list(file, _images(collected.notes(split)))
            file.write(b'],\n"annotations": [')
            _write_list(file, _annotations(collected.notes(split)))
            file.write(b"]}\n")


def _categories(classes: "Classes") -> list[dict[str, Any]]:
    labels = {label: name for label, name in classes.by_label.items() if label != BACKGROUND}
    return [
        {"id": label, "name": name, "supercategory": "", "color": classes.colour(label)}
        for label, name in labels.items()
    ]


def _images(notes: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, note in enumerate(notes, 1):
        yield {"id": number, **{name: note[name] for name in ("file_name", "height", "width")}}


def _annotations(notes: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    count = 0
    for number, note in enumerate(notes, 1):
        for instance in note["instances"]:
            count += 1
            yield {"id": count, "image_id": number, **instance}


def _write_list(file: BinaryIO, values: Iterator[dict[str, Any]]) -> None:
    for number, value in enumerate(values):
        file.write(b",\n" if number else b"\n")
        file.write(json.dumps(value, ensure_ascii=False).encode())


COCO = Format(
    encode,
    finish,
    ignore=BACKGROUND,
    options=frozenset({"pieces", "polygons"}),
    needs=("pycocotools", "coco"),
)
