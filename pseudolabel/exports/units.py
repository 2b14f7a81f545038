"""What an export notes in its hidden folder: its settings, and what became of the samples of each shard."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pseudolabel.errors import NotOursError, OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.lock import lock_output
from pseudolabel.io.ownership import NAMED, OwnFiles
from pseudolabel.shards.packing import DigestedFile

HIDDEN = ".pseudolabel.export"
SETTINGS = "settings.json"
OPTION = "folder for the export"


@dataclass
class Unit:
    """What became of the samples of one shard.

    Attributes:
        stamp: of the shard, and what else tells whether it has changed.
        left_out: number of samples that were not asked for.
        samples: a record of each exported sample, in the shard's order: `key`, `split`, `note`, and `files`, the
            sha256 of each file by name.
        packed: sha256 by name of the files that hold all samples of the shard.
        failures: `key`, `status` and `message` of each sample that could not be exported.
    """

    stamp: list[int]
    left_out: int = 0
    packed: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, str]:
        """The sha256 of every file by name."""
        return {**self.packed, **{name: own for sample in self.samples for name, own in sample["files"].items()}}

    @property
    def statuses(self) -> Counter[str]:
        """Number of failures by status."""
        return Counter(failure["status"] for failure in self.failures)


class ExportFolder:
    """The folder of an export.

    A file that is there already is replaced only if its bytes are those that an earlier export noted for it.
    """

    def __init__(self, path: str) -> None:
        self.folder = Folder(path, OPTION)
        self._hidden = self.folder / HIDDEN
        self._own = OwnFiles(self.folder, option=OPTION)

    @contextmanager
    def open(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Note the settings of the export, or compare them with those of an earlier one; lock the folder.

        Raises:
            NotOursError: if the folder holds files and no export.
            OutputError: if it holds an export with other settings, another process writes there, or it cannot be
                written.
        """
        self._start(settings)
        with lock_output(self._hidden, 0):
            self.folder.sweep_all()
            yield

    def _start(self, settings: Mapping[str, Any]) -> None:
        noted = json.loads(encode_json(settings))
        self.folder.prepare()
        if not self._hidden.exists(SETTINGS):
            others = [name for name in self.folder.names() if name != HIDDEN]
            if others:
                more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
                raise NotOursError(
                    f"'{self.folder.path}' holds files that are of no export: {', '.join(map(repr, others[:NAMED]))}"
                    f"{more}; choose a new or empty {OPTION}"
                )
            self._hidden.prepare()
            self._hidden.write_bytes(SETTINGS, encode_json(noted))
            return
        try:
            before = json.loads(self._hidden.read_bytes(SETTINGS))
        except ValueError as error:
            raise OutputError(
                f"'{self._hidden.path}/{SETTINGS}' is damaged ({error}); choose another {OPTION}"
            ) from error
        if before != noted:
            names = sorted(name for name in {*before, *noted} if before.get(name) != noted.get(name))
            changes = "".join(f"\n  {name}: {before.get(name)} -> {noted.get(name)}" for name in names)
            raise OutputError(
                f"'{self.folder.path}' holds an export with other settings:{changes}\nChoose another {OPTION}, or "
                "remove that one"
            )

    def read(self, name: str) -> Unit | None:
        """What is noted of a shard; None where nothing valid is."""
        try:
            head, *lines = map(json.loads, self._hidden.read_bytes(f"{name}.jsonl").splitlines())
            unit = Unit(head["stamp"], head["left_out"], head["packed"])
            for line in lines:
                (unit.failures if "status" in line else unit.samples).append(line)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return unit

    def write(self, name: str, unit: Unit, before: Unit | None) -> None:
        """Note what became of a shard, and remove the files of its samples that are exported no more."""
        head = {"stamp": unit.stamp, "left_out": unit.left_out, "packed": unit.packed}
        lines = [head, *unit.samples, *unit.failures]
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        kept = unit.files
        for file, own in (before.files if before is not None else {}).items():
            if file not in kept and self._sha256(file) == own:
                self.folder.remove(file)
        self.folder.sync(kept)
        self._hidden.write_bytes(f"{name}.jsonl", text.encode("utf-8", "surrogatepass"))

    def put(self, files: Mapping[str, bytes], before: Mapping[str, str]) -> dict[str, str]:
        """Write the files of a sample, unless they are there already; gives their sha256 by name.

        Args:
            files: bytes by name.
            before: the sha256 that an earlier export noted for files of this shard.

        Raises:
            NotOursError: if one would replace a file with bytes that no export of ours has noted.
        """
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for name, data in files.items():
            if self._is_needed(name, hashes[name], before):
                self.folder.write_bytes(name, data, synced=False)  # `write` syncs all of a shard at once
        return hashes

    @contextmanager
    def pack(self, name: str, before: Mapping[str, str]) -> Iterator[DigestedFile]:
        """Write a file of a shard's samples from beginning to end; arguments and errors as of `put`."""
        with self.folder.write(name) as file:
            digested = DigestedFile(file)
            yield digested
            self._is_needed(name, digested.sha256, before)

    def _is_needed(self, name: str, own: str, before: Mapping[str, str]) -> bool:
        """Whether a file with this sha256 has to be written; raises NotOursError if it may not be."""
        there = self._sha256(name)
        if there not in (None, own, before.get(name)):
            raise NotOursError(
                f"'{self.folder.path}/{name}' was not written by this export, or was changed since, so it is not "
                f"overwritten; choose another {OPTION}, or move it away"
            )
        return there != own

    def obstacle(self, name: str) -> str:
        """Why a file with this name can never be written here; empty if it can."""
        return self._own.obstacle(name)

    def _sha256(self, name: str) -> str | None:
        try:
            return hashlib.sha256(self.folder.read_bytes(name)).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def collect(self, name: str) -> Iterator[BinaryIO]:
        """Write a file about all samples; it appears when it is complete.

        Raises:
            NotOursError: if it would replace a file that is not ours.
        """
        with self.folder.write(name) as file:
            digested = DigestedFile(file)
            yield cast(BinaryIO, digested)
            self._own.note({name: digested.sha256})
