"""People's masks of a run, beside its shards: every run that writes masks into the folder puts them in place again."""

import json
import logging
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members, Span, read_spans, write_tar

log = logging.getLogger(__name__)

FOLDER = "corrections"
HUMAN = "human"
_SHARD = re.compile(r"corrections-(\d{6})\.tar")
_MEMBERS = ("png", "json")


@dataclass(frozen=True)
class Correction:
    """Where a mask of a person is: the tar, its members, and what its JSON member says."""

    shard: str
    spans: Mapping[str, Span]
    fields: Mapping[str, Any]


class Corrections:
    """The masks in `OUT/corrections`: tars of `KEY.png` and `KEY.json`, of which the later ones count.

    They lie outside of `OUT/masks`, so that they outlast it: masks that are refined again with other settings get them,
    too.

    Args:
        folder: `OUT/corrections`; need not exist.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._shards = [name for name in folder.names() if _SHARD.fullmatch(name)]
        self.by_key: dict[str, Correction] = {}
        for name in self._shards:
            self._read(name)

    def _read(self, name: str) -> None:
        try:
            with self.folder.open(name) as file:
                for key, spans in read_spans(file):
                    file.seek(spans["json"].offset)
                    fields = json.loads(file.read(spans["json"].length))
                    self.by_key[key] = Correction(name, {suffix: spans[suffix] for suffix in _MEMBERS}, fields)
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise ShardError(
                f"'{self.folder.path}/{name}' cannot be read ({error!r}); move it away to go on without its corrections"
            ) from error

    def members(self, key: str) -> dict[str, bytes]:
        """The members `png` and `json` of a key that has a correction."""
        correction = self.by_key[key]
        with self.folder.open(correction.shard) as file:
            found = {}
            for suffix, span in correction.spans.items():
                file.seek(span.offset)
                found[suffix] = file.read(span.length)
            return found

    def add(self, corrected: Mapping[str, Members]) -> None:
        """Add masks, in a new tar; those that are here already with the same bytes are left out."""
        new = {
            key: members
            for key, members in sorted(corrected.items())
            if key not in self.by_key or self.members(key) != members
        }
        if not new:
            return
        last = max((int(name[-10:-4]) for name in self._shards), default=-1)
        name = f"corrections-{last + 1:06d}.tar"
        with self.folder.write(name) as file:
            write_tar(file, new.items())
        self._shards.append(name)
        self._read(name)

    def apply(
        self, samples: Iterable[tuple[str, Members]], names: Sequence[str]
    ) -> tuple[list[tuple[str, Members]], int]:
        """The samples of a mask shard with people's masks in place, and how many these are.

        Args:
            samples: (key, members) pairs.
            names: of the run's classes by label; a correction of other classes is not applied, and a warning logged.
        """
        done, count = [], 0
        for key, members in samples:
            if key in self.by_key and self._fits(key, json.loads(members["json"]), names):
                members, count = {**members, **self.members(key)}, count + 1
            done.append((key, members))
        return done, count

    def _fits(self, key: str, machine: Mapping[str, Any], names: Sequence[str]) -> bool:
        fields = self.by_key[key].fields
        now = [names[label] if label < len(names) else "" for label in fields["classes"]]
        if now != fields["names"]:
            log.warning("%s: the correction is of the classes %s, which are others in this run", key, fields["names"])
            return False
        sizes = [(own["height"], own["width"]) for own in (fields, machine)]
        if sizes[0] != sizes[1]:
            log.warning("%s: the correction is of size %s, but the image is %s now", key, *sizes)
        return sizes[0] == sizes[1]


def corrections_of(masks: Folder) -> Corrections:
    """The corrections of the run whose masks are in this folder, `OUT/masks`."""
    return Corrections(Folder(masks.path.rpartition("/")[0] or ".", masks.setting) / FOLDER)
