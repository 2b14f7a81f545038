"""The classes of shards' labels, from a file beside them, and their comparison with a vocabulary."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pseudolabel.errors import NotOursError, ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.records import IGNORE
from pseudolabel.shards.find import folder_of
from pseudolabel.shards.ledger import RUN
from pseudolabel.vocabulary import Vocabulary

ID2LABEL = "id2label.json"  # Hugging Face's name for a data set's classes by label value
CARD = "README.md"
# Without it `datasets.load_dataset` takes the ledger's JSON files for the data.
_CARD = """---
configs:
- config_name: default
  data_files: masks-*.tar
---

Pseudo-masks of pseudolabel, as WebDataset shards: the image `KEY.jpg`, its mask `KEY.png` and what is known of them,
`KEY.json`. A mask's values are class indices: 0 is background, 255 is ignored, and `id2label.json` names the others.

`datasets.load_dataset` with this folder reads them, as do `pseudolabel.ShardDataset` and `webdataset`. `pseudolabel
export` writes them in other formats.
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedClasses:
    """The classes of labels, from a file beside the shards.

    Attributes:
        origin: the file.
        vocabulary: the vocabulary's name; empty if the file does not name it.
        names: by label value, starting with 0.
    """

    origin: str
    vocabulary: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"vocabulary '{self.vocabulary}' of '{self.origin}'" if self.vocabulary else f"'{self.origin}'"


def write_classes(folder: Folder, names: Sequence[str]) -> None:
    """Write what a folder of mask shards is read by: the classes by label value, and a card for `load_dataset`.

    Files of these names that others wrote or changed are left as they are.

    Args:
        folder: of the shards; it exists.
        names: by label value; what 0 is called comes first.
    """
    by_label = {str(label): name for label, name in enumerate(names)}
    text = json.dumps({**by_label, str(IGNORE): "ignore"}, indent=2, ensure_ascii=False)
    own = OwnFiles(folder)
    for name, data in ((ID2LABEL, f"{text}\n".encode()), (CARD, _CARD.encode())):
        try:
            own.write({name: data})
        except NotOursError:
            log.info("'%s/%s' is not ours, or was changed: it stays as it is", folder.path, name)


def check_vocabulary(paths: Sequence[str], vocabulary: Vocabulary) -> None:
    """Check that shards have the classes of this vocabulary, if a file beside them records their classes.

    Args:
        paths: of the shards.
        vocabulary: the one that they are to be read with.

    Raises:
        ShardError: if the classes differ in number, name or order; the message has both.
    """
    for path in {folder_of(path): path for path in reversed(paths)}.values():
        folder = folder_of(path)
        if path.rpartition("/")[2].startswith("segments-") and Folder(folder).exists(RUN):
            raise ShardError(f"'{path}' holds regions that only tell apart, without classes, so nothing can be learnt")
        for recorded in recorded_classes(Folder(folder)):
            difference = _difference(recorded, vocabulary)
            if difference:
                raise ShardError(
                    f"the shards in '{folder}' are of {recorded}, not of vocabulary '{vocabulary.name}': {difference}; "
                    "set the data set's `vocabulary` to the one that the shards were made with"
                )


def recorded_classes(folder: Folder) -> list[RecordedClasses]:
    """What `run.json` and `id2label.json` say, those of them that are there and tell the classes.

    Raises:
        ShardError: if one of them cannot be read.
    """
    found = []
    for name, read in ((RUN, _from_run), (ID2LABEL, _from_labels)):
        if not folder.exists(name):
            continue
        origin = f"{folder.path}/{name}"
        try:
            recorded = read(json.loads(folder.read_bytes(name)), origin)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"'{origin}' cannot be read ({error!r}); correct it, or take it away") from error
        found += [recorded] if recorded is not None and recorded.names else []
    return found


def read_run(folder: Folder) -> dict[str, Any]:
    """What `run.json` holds; empty where there is none.

    Raises:
        ShardError: if it cannot be read.
    """
    if not folder.exists(RUN):
        return {}
    try:
        run = json.loads(folder.read_bytes(RUN))
        return {**run, "settings": run["settings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"'{folder.path}/{RUN}' cannot be read ({error!r}); correct it, or take it away") from error


def _from_run(run: dict[str, Any], origin: str) -> RecordedClasses | None:
    about = run.get("about", {})
    return RecordedClasses(origin, about.get("cams", about).get("vocabulary", ""), class_names(run["settings"]))


def class_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a run's classes by label, from its settings; empty if they do not tell."""
    own = settings.get("cams", settings)  # refined masks carry the settings of their maps
    return tuple((own.get("vocabulary") or {}).get("names", ()))


def _from_labels(names: dict[str, str], origin: str) -> RecordedClasses:
    by_value = {int(value): str(name) for value, name in names.items() if int(value) != IGNORE}
    if sorted(by_value) != list(range(len(by_value))):
        raise ValueError("the label values are not 0, 1, 2, ...")
    return RecordedClasses(origin, "", tuple(by_value[value] for value in range(len(by_value))))


def _difference(recorded: RecordedClasses, vocabulary: Vocabulary) -> str:
    """The first difference in words; empty where there is none."""
    if len(recorded.names) != len(vocabulary.names):
        return f"{len(recorded.names)} labels with 0, where the vocabulary has {len(vocabulary.names)}"
    for value, (theirs, ours) in enumerate(zip(recorded.names, vocabulary.names, strict=True)):
        if value == 0:
            # Foreign files call it anything; a run's own name for it tells whether there is background.
            is_same = theirs == ours if recorded.vocabulary else vocabulary.find(theirs) is None
        else:
            is_same = theirs == ours or vocabulary.find(theirs) == value
        if not is_same:
            return f"label {value} is '{theirs}' there, and '{ours}' in the vocabulary"
    return ""
