"""`hf`: Parquet files with images, as the Hugging Face hub stores data sets, and a data set card."""

import json
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from pseudolabel.exports.format import Collected, Encoded, Format, Packing, Settings
from pseudolabel.exports.png import grey_png
from pseudolabel.exports.sample import ALL, TRAIN, VAL, MaskSample
from pseudolabel.records import IGNORE

if TYPE_CHECKING:
    import pyarrow

CARD = "README.md"
SPLITS = {ALL: "train", TRAIN: "train", VAL: "validation"}  # as the hub calls them
_ROWS = 64  # of a row group; a reader holds one in memory
_IMAGE = {"_type": "Image"}


def encode(sample: MaskSample, settings: Settings) -> Encoded:
    """A row; there are no files of single samples."""
    confidence = sample.fields.get("confidence")
    row = {
        "image": {"bytes": sample.image, "path": f"{sample.key}.jpg"},
        "mask": {"bytes": grey_png(sample), "path": f"{sample.key}.png"},
        "classes": [label for label in sample.classes if label != IGNORE],
        "key": sample.key,
        "confidence": float(confidence) if isinstance(confidence, int | float) else None,
    }
    return Encoded({}, {}, row)


class ParquetRows:
    """Writes the rows of a shard's split into a Parquet file, a few at a time.

    Args:
        file: open for writing.
        settings: of the export.
    """

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        import pyarrow
        from pyarrow import parquet

        self._schema = _schema(settings)
        self._target = pyarrow.PythonFile(_Written(file), mode="w")
        # Images are compressed already.
        self._writer = parquet.ParquetWriter(self._target, self._schema, compression="none", use_dictionary=False)
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row, or hold it until there are enough."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []


class _Written:
    """What pyarrow asks of a file that it writes from beginning to end."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._place = file, 0

    def write(self, data: bytes) -> int:
        self._place += len(data)
        return self._file.write(bytes(data))

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The caller closes the file."""


def part_name(shard: str, split: str) -> str:
    """The file of a shard's samples of a split."""
    return f"data/{SPLITS[split]}-{shard}.parquet"


def _schema(settings: Settings) -> "pyarrow.Schema":
    import pyarrow

    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = {
        "image": image,
        "mask": image,
        "classes": pyarrow.list_(pyarrow.int64()),
        "key": pyarrow.string(),
        "confidence": pyarrow.float64(),
    }
    features = {
        "image": _IMAGE,
        "mask": _IMAGE,
        "classes": {"feature": {"names": list(settings.classes.names), "_type": "ClassLabel"}, "_type": "List"},
        "key": {"dtype": "string", "_type": "Value"},
        "confidence": {"dtype": "float64", "_type": "Value"},
    }
    return pyarrow.schema(columns.items(), {"huggingface": json.dumps({"info": {"features": features}})})


def finish(collected: Collected, settings: Settings) -> None:
    """The data set card."""
    counts = {split: sum(1 for _ in collected.notes(split)) for split in settings.splits}
    with collected.write(CARD) as file:
        file.write(_card(settings, counts).encode())


def _card(settings: Settings, counts: Mapping[str, int]) -> str:
    classes = {str(label): name for label, name in enumerate(settings.classes.names)}
    head = {
        "pretty_name": settings.name,
        "task_categories": ["image-segmentation"],
        "tags": ["pseudo-labels", "weakly-supervised", "pseudolabel"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": SPLITS[split], "path": f"data/{SPLITS[split]}-*.parquet"}
                    for split, count in counts.items()
                    if count
                ],
            }
        ],
        "dataset_info": {
            "features": [
                {"name": "image", "dtype": "image"},
                {"name": "mask", "dtype": "image"},
                {"name": "classes", "list": {"class_label": {"names": classes}}},
                {"name": "key", "dtype": "string"},
                {"name": "confidence", "dtype": "float64"},
            ]
        },
    }
    rows = "\n".join(
        f"| {label} | {name} | `#{bytes(settings.classes.colour(label)).hex()}` |"
        for label, name in settings.classes.by_label.items()
    )
    numbers = ", ".join(f"{count:,} in `{SPLITS[split]}`" for split, count in counts.items())
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# {settings.name}

Images with pseudo-masks: {numbers}. **No person drew the masks**: [pseudolabel](https://pypi.org/project/pseudolabel/)
{_version()} made them from image-level labels, so they have errors.

| column | content |
|---|---|
| `image` | the image, RGB |
| `mask` | one channel; each value is a class of the table below |
| `classes` | the classes in the mask, without background |
| `key` | the sample's name |
| `confidence` | how sure the masks are, in [0, 1]; empty where that was not measured |

## Classes

| value | name | colour |
|---:|---|---|
{rows}

## How the masks were made

{_method(settings.about)}
## Licence

The images keep the licence of the data set that they come from. Add `license:` to the head of this file, and name the
source of the images, before you publish them.
"""


def _version() -> str:
    try:
        return metadata.version("pseudolabel")
    except metadata.PackageNotFoundError:
        return "of a copy that is not installed"


def _method(run: Mapping[str, Any]) -> str:
    """The method and its options, as far as the run's file tells them."""
    if not run:
        return "The run that made the masks is not known.\n"
    settings = {name: value for name, value in run["settings"].items() if name != "cams"}
    about = run.get("about", {})
    told = {**settings, **run["settings"].get("cams", {})}
    told |= {"about": about.get("cams", about)}
    told = {name: value for name, value in told.items() if name not in ("inputs", "vocabulary")}
    method = told.get("method")
    named = f"Method: `{method}`.\n\n" if isinstance(method, str) else ""
    return f"{named}```yaml\n{yaml.safe_dump(told, sort_keys=True, allow_unicode=True)}```\n"


HUGGING_FACE = Format(encode, finish, pack=Packing(part_name, ParquetRows), needs=("pyarrow", "parquet"))
