"""Tables: one row per image, or per image and label, in CSV, JSON lines or Parquet."""

from dataclasses import replace
from unicodedata import category

from pseudolabel.config import SourceConfig
from pseudolabel.errors import SourceError
from pseudolabel.io.files import Location, is_file, join
from pseudolabel.io.tar import is_meta
from pseudolabel.sources.columns import Columns, parse_columns
from pseudolabel.sources.entry import Entry, key_of
from pseudolabel.sources.labels import LabelReader
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import choose_masks
from pseudolabel.sources.table_rows import Embedded, read_rows
from pseudolabel.vocabulary import Vocabulary

_NOT_IN_KEYS = ("Cc", "Cs")  # control characters, and halves of characters, as JSON can hold them


def list_table(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List the images of a table with the columns `image` and `labels`, and where wanted `key` and `mask`.

    `image` may be called `file_name`, and `labels` `label`; `config.columns` names any others. `image` and `mask` are
    absolute, URLs, or relative to the table's folder, or in Parquet bytes, as Hugging Face's `datasets` writes them.
    `labels` is what `LabelReader.read` takes, in Parquet also a ClassLabel; blank means that the image has none. Rows
    of one image are one sample with the labels of all. `key` names the sample and must be tar-safe; where it is left
    out, the image's path does.

    Raises:
        SettingError: if `config.columns` is no list of columns.
        SourceError: if the file is missing or broken, a column is missing, a row names no image, or two rows name
            different masks for one.
    """
    path = config.path
    folder = path[: path.rfind("/") + 1]
    required = ("image", "labels") if config.labels == "xml" else ("image",)
    reader = LabelReader(vocabulary)
    entries: list[Entry] = []
    places: dict[str, int] = {}
    masks: dict[str, Location] = {}
    for row in read_rows(path, Columns(parse_columns(config.columns), required)):
        name, location = _locate(row.image, "image", row.origin, path, folder)
        key = key_of(name) if row.key in (None, "") else _checked_key(str(row.key), row.origin)
        classes, problem = reader.read(row.labels, row.origin)
        entry = Entry(key, location.path, classes, row.origin, problem, cell=location.cell)
        place = places.setdefault(key, len(entries))
        if place < len(entries) and _is_same_image(entries[place], entry):
            entries[place] = _united(entries[place], entry)
        else:
            entries.append(entry)
        if row.mask not in (None, ""):
            _, mask = _locate(row.mask, "mask", row.origin, path, folder)
            if masks.setdefault(key, mask) != mask:
                raise SourceError(
                    f"{row.origin}: mask '{mask.path}' of '{key}', for which another row names '{masks[key].path}'; "
                    "keep one"
                )
    return Listing(entries, choose_masks(masks, config.masks, entries))


def _is_same_image(one: Entry, other: Entry) -> bool:
    return one.path == other.path and one.cell == other.cell


def _united(one: Entry, other: Entry) -> Entry:
    """One sample with the labels of both; a problem of either remains."""
    problem = one.problem or other.problem
    classes = () if problem else tuple(sorted({*one.classes, *other.classes}))
    return replace(one, classes=classes, problem=problem)


def _locate(value: object, column: str, origin: str, table: str, folder: str) -> tuple[str, Location]:
    """The name of an image or mask, and where it is."""
    if isinstance(value, Embedded):
        return value.name, Location(table, cell=value.cell)
    name = _text(value, column, origin)
    place = join(folder, name)
    if "\\" in name and "://" not in name and not is_file(place):
        slashed = name.replace("\\", "/")  # as Windows writes paths
        if is_file(join(folder, slashed)):
            name, place = slashed, join(folder, slashed)
    return name, Location(place)


def _text(value: object, column: str, origin: str) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = "nothing" if value in (None, "") else f"{type(value).__name__} {value!r}"[:80]
        raise SourceError(f"{origin}: column '{column}' holds {shown}; it needs a path or URL")
    return value


def _checked_key(key: str, origin: str) -> str:
    """A key the user chose is never changed, since captions and results are looked up by it."""
    if "." in key or "" in key.split("/"):
        raise SourceError(
            f"{origin}: key '{key}' cannot name a tar member; it may hold no dot and no empty folder name"
        )
    if not key.isprintable() and any(category(sign) in _NOT_IN_KEYS for sign in key):
        raise SourceError(
            f"{origin}: key {key!a} cannot name a tar member; it may hold no control characters and no surrogates"
        )
    if is_meta(f"{key}.jpg"):
        raise SourceError(
            f"{origin}: key '{key}' cannot name a tar member; WebDataset's readers pass over folders such as __a__"
        )
    return key
