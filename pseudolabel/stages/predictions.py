"""Find the predictions in a folder and the images that they belong to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pseudolabel.errors import SourceError
from pseudolabel.io.files import is_folder
from pseudolabel.io.folder import Folder
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_images
from pseudolabel.records import Failure, Kind
from pseudolabel.shards.ledger import Ledger
from pseudolabel.sources.entry import Entry, key_of

NO_PREDICTION, AMBIGUOUS = "no prediction", "several predictions"
OVERLAY = ".overlay.png"  # what `segment` draws beside a mask
_WANTED = {"cams": "CAM shards", "masks": "mask shards or PNG masks", "segments": "segment shards or PNG files"}


@dataclass(frozen=True)
class Predictions:
    """The predictions of a folder.

    Attributes:
        folder: the folder.
        shards: names of the shards; if there are any, other files do not count.
        files: path below the folder of each image's PNG, by key.
        failures: failures of listed images without a prediction, if recorded, by key.
        unlisted: PNGs that belong to no listed image.
        left_out: other files in a folder of PNGs, counted by kind.
    """

    folder: Folder
    shards: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    unlisted: Sequence[str] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


def find_predictions(kind: Kind, folder: Folder, entries: Sequence[Entry]) -> Predictions:
    """Find the shards of a folder or, for masks and segments, the PNGs in it and below.

    A PNG belongs to the image whose key its path below the folder gives (`a.b/c.d.png` belongs to `a_b/c_d`). If there
    is no such image, the file name alone decides, provided that it fits one file and one image.

    Raises:
        SourceError: if there is neither.
    """
    shards = [name for name in folder.names() if name.endswith(".tar")]
    if shards:
        return Predictions(folder, shards, failures=_recorded(kind, folder))
    images, left_out = find_images(folder.path) if kind != "cams" and is_folder(folder.path) else ([], LeftOut())
    files = [name for name in images if name.lower().endswith(".png") and not name.lower().endswith(OVERLAY)]
    if not files:
        raise SourceError(
            f"no {_WANTED[kind]} in '{folder.path}'; write them first, or name another folder with `predictions`"
        )
    left_out += LeftOut(Counter(_why_none(name) for name in set(images) - set(files)))
    found, ambiguous = match_files(files, entries)
    failures = {}
    for entry in entries:
        if names := ambiguous.get(entry.key):
            message = f"'{entry.key}' has several predictions: {', '.join(names)}"
            failures[entry.key] = Failure(entry.key, entry.origin, AMBIGUOUS, message)
    taken = {*found.values(), *(name for names in ambiguous.values() for name in names)}
    return Predictions(folder, (), found, failures, [name for name in files if name not in taken], left_out)


def _why_none(name: str) -> str:
    return OVERLAY if name.lower().endswith(OVERLAY) else f".{name.rpartition('.')[2]}"


def match_files(files: Iterable[str], entries: Sequence[Entry]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The file of each key that has one, and the files of each key that has several; see `find_predictions`."""
    keys = {entry.key for entry in entries}
    exact: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name in files:
        key = key_of(name)
        place = exact if key in keys else others
        place.setdefault(key if key in keys else _last(key), []).append(name)
    bare = _bare_names(entries)
    for last, names in others.items():
        key = bare.get(last, "")
        if key and key not in exact:
            exact[key] = names
    found = {key: names[0] for key, names in exact.items() if len(names) == 1}
    return found, {key: names for key, names in exact.items() if len(names) > 1}


def _bare_names(entries: Iterable[Entry]) -> dict[str, str]:
    """Keys by the last part of the key or of the image's path, if exactly one image has it."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        names = {_last(entry.key)} | ({key_of(_last(entry.path))} if entry.offset is None else set())
        for name in names:
            found.setdefault(name, set()).add(entry.key)
    return {name: next(iter(keys)) for name, keys in found.items() if len(keys) == 1}


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _recorded(kind: Kind, folder: Folder) -> dict[str, Failure]:
    """Failures in the ledger of the shards, by key."""
    ledger = Ledger(folder, kind)
    return {failure.key: failure for entry in ledger.read(ledger.units()).values() for failure in entry.failures}
