"""`labelstudio`: tasks with predictions as brush strokes, and the labelling configuration."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pseudolabel.exports.format import Classes, Collected, Encoded, Format, Settings
from pseudolabel.exports.sample import MaskSample
from pseudolabel.records import BACKGROUND

TAG, IMAGE = "mask", "image"  # names in the labelling configuration
_CHANNELS = 4  # Label Studio paints RGBA
_SIZES = (3, 4, 8, 16)  # bits of a run's length


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`images/KEY.jpg`, and the task as the note."""
    height, width = sample.labels.shape
    shared = {"type": "brushlabels", "from_name": TAG, "to_name": IMAGE, "image_rotation": 0}
    size = {"original_width": width, "original_height": height}
    result = [
        {"id": f"class-{label}", **shared, **size, "value": _stroke(sample.labels == label, name)}
        for label, name in settings.classes.by_label.items()
        if label in sample.classes
    ]
    prediction: dict[str, Any] = {"model_version": "pseudolabel", "result": result}
    confidence = sample.fields.get("confidence")
    if isinstance(confidence, int | float):
        prediction["score"] = confidence
    path = f"images/{sample.name}.jpg"
    data = {IMAGE: path, "key": sample.key}
    return Encoded({path: sample.image}, {"task": {"data": data, "predictions": [prediction]}})


def _stroke(mask: np.ndarray, name: str) -> dict[str, Any]:
    return {"format": "rle", "rle": list(brush_rle(mask)), "brushlabels": [name]}


def brush_rle(mask: np.ndarray) -> bytes:
    """A mask in Label Studio's run lengths, those of the package @thi.ng/rle-pack.

    32 bits give the number of values, 5 and 4 times 4 bits the sizes of values and lengths less one. A run is a 1, 2
    bits for the size of its length, its length less one, and its value; a pixel has four values, 0 or 255.

    Args:
        mask: bool (H, W).
    """
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    head = f"{flat.size * _CHANNELS:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)
    runs = zip(lengths.tolist(), flat[ends - 1].tolist(), strict=True)
    bits = head + "".join(_run(length, is_set) for length, is_set in runs)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _run(length: int, is_set: bool) -> str:
    longest = 1 << _SIZES[-1]
    value = "11111111" if is_set else "00000000"
    whole = f"111{longest - 1:b}{value}" * ((length - 1) // longest)
    rest = (length - 1) % longest
    number = next(number for number, size in enumerate(_SIZES) if rest < 1 << size)
    return f"{whole}1{number:02b}{rest:0{_SIZES[number]}b}{value}"


def finish(collected: Collected, settings: Settings) -> None:
    """`tasks/SHARD.json`, a file to import for each shard, and `labelling_config.xml`."""
    for name, notes in collected.parts():
        tasks = [json.dumps(_located(note["task"], settings.name), ensure_ascii=False) for note in notes]
        with collected.write(f"tasks/{name}.json") as file:
            file.write(f"[{','.join(tasks)}]\n".encode())
    with collected.write("labelling_config.xml") as file:
        file.write("\n".join(_config(settings.classes)).encode() + b"\n")


def _located(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """The task with its image's address, below the folder's name of today."""
    path = f"{folder}/{task['data'][IMAGE]}"
    return {**task, "data": {**task["data"], IMAGE: f"/data/local-files/?d={quote(path)}"}}


def _config(classes: Classes) -> Iterator[str]:
    yield "<View>"
    yield f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>'
    yield f'  <BrushLabels name="{TAG}" toName="{IMAGE}">'
    for label, name in classes.by_label.items():
        if label != BACKGROUND:
            yield f'    <Label value={quoteattr(name)} background="#{bytes(classes.colour(label)).hex()}"/>'
    yield "  </BrushLabels>"
    yield "</View>"


LABEL_STUDIO = Format(encode, finish, ignore=BACKGROUND)
