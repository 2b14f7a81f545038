"""`cvat`: CVAT's "Segmentation mask 1.1", which is VOC's layout with colours and a list of labels."""

import io
import json
import zipfile
from collections.abc import Iterator

from PIL import Image

from pseudolabel.errors import SettingError
from pseudolabel.exports.format import Classes, Collected, Encoded, Format, Settings
from pseudolabel.exports.sample import MaskSample
from pseudolabel.exports.voc import LISTS, MASKS
from pseudolabel.records import BACKGROUND
from pseudolabel.vocabulary import voc_palette

LABELS = "labelmap.txt"
OBJECTS = "SegmentationObject"
ARCHIVE = "annotations.zip"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip can say; equal masks give equal archives


def check(classes: Classes) -> None:
    """Make sure that the names can be listed.

    Raises:
        SettingError: if one cannot.
    """
    for name in classes.names:
        if ":" in name or name.startswith("#") or name != name.strip():
            raise SettingError(
                f"class '{name}': CVAT's list of labels takes no colon, no # in front and no blanks around a name; "
                "rename it in 'id2label.json' beside the shards"
            )


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """`JPEGImages/KEY.jpg`, and the mask in colours, `SegmentationClass/KEY.png`.

    `SegmentationObject` has the same colours: each class of an image is one object. Without it, CVAT would take the
    background for an object as well.
    """
    buffer = io.BytesIO()
    Image.fromarray(voc_palette()[sample.labels]).save(buffer, "PNG")
    masks = {f"{folder}/{sample.key}.png": buffer.getvalue() for folder in (MASKS, OBJECTS)}
    return Encoded({f"JPEGImages/{sample.key}.jpg": sample.image, **masks}, {})


def finish(collected: Collected, settings: Settings) -> None:
    """The list of labels, the lists of keys, `annotations.zip` to import, and `labels.json` to set up a task with."""
    texts = {LABELS: "".join(_label_lines(settings.classes))}
    with collected.write(LABELS) as file:
        file.write(texts[LABELS].encode())
    with collected.write("labels.json") as file:
        labels = [
            {"name": name, "color": f"#{bytes(settings.classes.colour(label)).hex()}", "attributes": []}
            for label, name in settings.classes.by_label.items()
            if label != BACKGROUND
        ]
        file.write(f"{json.dumps(labels, indent=2, ensure_ascii=False)}\n".encode())
    for split in settings.splits:
        with collected.write(_list_name(split)) as file:
            for line in _keys(collected, split):
                file.write(line)
    with collected.write(ARCHIVE) as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, LABELS, texts[LABELS].encode())
        for split in settings.splits:
            _add(archive, _list_name(split), b"".join(_keys(collected, split)))
            for note in collected.notes(split):
                for folder in (MASKS, OBJECTS):
                    name = f"{folder}/{note['key']}.png"
                    _add(archive, name, collected.read(name))


def _label_lines(classes: Classes) -> Iterator[str]:
    yield "# label:color_rgb:parts:actions\n"
    for label, name in classes.by_label.items():
        yield f"{name}:{','.join(map(str, classes.colour(label)))}::\n"


def _list_name(split: str) -> str:
    return f"{LISTS}/{split or 'default'}.txt"


def _keys(collected: Collected, split: str) -> Iterator[bytes]:
    return (f"{note['key']}\n".encode() for note in collected.notes(split))


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EARLIEST), data)  # stored: PNGs are compressed already


CVAT = Format(encode, finish, ignore=BACKGROUND, check=check)
