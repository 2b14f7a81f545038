"""The ledger: what every shard of an output folder holds, and the fingerprint of the run that wrote it."""

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import digest, encode_json
from pseudolabel.records import Failure

RUN = "run.json"
INDEX = "index.json"
SKIPPED = "unlabelled"  # a status: left out by choice, not a failure
THREADS = 16  # read entries; behind a URL waiting for them is all the time there is
NOTHING: dict[str, Any] = {}
WAIT_SECONDS = 0.1  # between checks of what the first rank has done
PLUGIN = "plugin"  # a setting: digest of the user's file that registers the method
CHANGED_PLUGIN = "the file that registers the method has changed since the run began"
CHANGED_CONTENT = "other content than when the run began"
RELABELLED_HINT = "\nIf labels or captions of failed samples were corrected, add `retry_failed`."

_DIGEST = re.compile(r"[0-9a-f]{16}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The record of one finished work unit, written after its shard.

    Attributes:
        unit: number of the work unit.
        shard: file name of its shard.
        samples: samples in the shard.
        statuses: how many of the unit's samples ended how; `ok` are the ones in the shard.
        failures: every sample that is not in the shard.
        size, sha256: of the shard's bytes.
        inputs: digest of what went in: the listed samples but the failed ones, or the sha256 of the shard it was
            made from.
        fingerprint: of the run's settings; `inputs` tells the labels.
        seconds: how long the unit took.
        reopened: whether the failures are being tried again, so that the unit is not finished any more.
        corrected: how many of the samples are people's masks.
    """

    unit: int
    shard: str
    samples: int
    statuses: dict[str, int]
    failures: tuple[Failure, ...]
    size: int
    sha256: str
    inputs: str
    fingerprint: str
    seconds: float
    reopened: bool = False
    corrected: int = 0

    @classmethod
    def parse(cls, data: bytes) -> "LedgerEntry":
        """Raises ValueError, KeyError or TypeError where the bytes are no ledger entry."""
        fields = json.loads(data)
        return cls(**{**fields, "failures": tuple(Failure(**failure) for failure in fields["failures"])})


def shard_name(kind: str, unit: int, suffix: str = "tar") -> str:
    """File name of a unit's shard."""
    return f"{kind}-{unit:06d}.{suffix}"


def entry_name(kind: str, unit: int) -> str:
    """File name of a unit's ledger entry."""
    return f"{kind}-{unit:06d}.json"


class Ledger:
    """The ledger of one output folder of one kind of shard (`cams`, `masks`, `segments`, `filter` or `captions`)."""

    def __init__(self, folder: Folder, kind: str) -> None:
        self.folder, self.kind = folder, kind

    def start(
        self,
        settings: Mapping[str, Any],
        relabelled: bool = False,
        is_main: bool = True,
        about: Mapping[str, Any] = NOTHING,
    ) -> str:
        """Record the run's settings, or check them against the recorded ones, and return their fingerprint.

        The first rank removes an earlier run without finished samples; the other ranks wait for that.

        Args:
            settings: everything that the shards' meaning depends on; `inputs` digests the labels of the samples.
            relabelled: whether labels may differ from the recorded ones; their units are done again.
            is_main: whether this is the first rank of the run.
            about: other properties of the run, such as its batch size, recorded for users.

        Raises:
            OutputError: if the folder holds another run's shards; the message shows the difference.
        """
        settings = json.loads(encode_json(settings))
        fingerprint = digest(_without_labels(settings))
        while True:
            before = self._before()
            if before == settings:
                return fingerprint
            are_relabelled = before is not None and _without_labels(before) == _without_labels(settings)
            if before is None or (relabelled and are_relabelled):
                break
            if self._holds_samples() and self.settings() == before:  # else the first rank has begun meanwhile
                raise self._refusal(before, settings, RELABELLED_HINT if are_relabelled else "")
            if is_main:
                self._discard()
                break
            time.sleep(WAIT_SECONDS)
        run = {"fingerprint": fingerprint, "settings": settings, "about": about}
        self.folder.write_bytes(RUN, encode_json(run))
        return fingerprint

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare settings that are known before a run starts with the recorded ones.

        Raises:
            OutputError: as `start` does.
        """
        before = self._before()
        if before is None or (noted := {name: before.get(name) for name in settings}) == settings:
            return
        if self._holds_samples():
            raise self._refusal(noted, settings)

    def about(self) -> dict[str, Any]:
        """The run's other properties, as `start` recorded them; empty for runs of earlier versions.

        Raises:
            OutputError: if it cannot be read.
        """
        return self._read_run().get("about", {})

    def changes(self, about: Mapping[str, Any]) -> list[str]:
        """One line for each property that differs from the recorded one."""
        return differences(self.about(), json.loads(encode_json(about)))

    def _before(self) -> dict[str, Any] | None:
        """The settings that the finished shards were made with; without any nothing can be mixed."""
        if not self.units():
            return None
        settings = self.settings()
        if settings is not None and "about" not in self._read_run() and self._holds_samples():
            raise OutputError(
                f"'{self.folder.path}' holds {self.kind} of an earlier version of pseudolabel, which recorded other "
                f"properties of a run: they can be read, but not extended. Choose another {self.folder.setting}, or "
                "finish the run with that version"
            )
        return settings

    def _holds_samples(self) -> bool:
        """Whether a sample of a run was done; where an entry cannot be read, its shard may hold some."""
        units = self.units()
        entries = self.read(units)
        return len(entries) < len(units) or any(entry.samples for entry in entries.values())

    def _discard(self) -> None:
        """Remove the shards and entries of a run in which no sample was done."""
        if self.folder.exists(INDEX):
            self.folder.remove(INDEX)
        for entry in self.read(self.units()).values():
            self.folder.remove(entry_name(self.kind, entry.unit))
            self.folder.remove(entry.shard)

    def _refusal(self, before: Mapping[str, Any], now: Mapping[str, Any], hint: str = "") -> OutputError:
        lines = differences(before, now)
        what = "that file" if all(line.endswith(CHANGED_PLUGIN) for line in lines) else "the settings"
        return OutputError(
            f"'{self.folder.path}' holds {self.kind} of a run with other settings:\n"
            + "\n".join(f"  {line}" for line in lines)
            + f"\nChoose another {self.folder.setting}, restore {what}, or remove that folder to start again."
            + hint
        )

    def settings(self) -> dict[str, Any] | None:
        """The settings of the run in the folder, None where there is none yet.

        Raises:
            OutputError: if they cannot be read.
        """
        return self._read_run()["settings"] if self.folder.exists(RUN) else None

    def _read_run(self) -> dict[str, Any]:
        try:
            run = json.loads(self.folder.read_bytes(RUN))
            return {**run, "settings": run["settings"]}
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"'{self.folder.path}/{RUN}' is damaged ({error}); remove that folder or choose another "
                f"{self.folder.setting}"
            ) from error

    def entry(self, unit: int) -> LedgerEntry | None:
        """The entry of a finished unit whose shard is there; None where the unit has to be done."""
        entry = self.stored(unit)
        return None if entry is None or entry.reopened else entry

    def stored(self, unit: int) -> LedgerEntry | None:
        """The entry of a unit whose shard exists, finished or reopened."""
        entry = self.recorded(unit)
        return entry if entry is not None and self.folder.size(entry.shard) == entry.size else None

    def read(self, units: Set[int]) -> dict[int, LedgerEntry]:
        """The `stored` entries of these units by number, read with a single listing of the folder."""
        listed = sorted(units & self.units()) if units else []
        if not listed:
            return {}
        sizes = self.folder.sizes()
        with ThreadPoolExecutor(THREADS) as pool:
            entries = zip(listed, pool.map(self.recorded, listed), strict=True)
            return {
                unit: entry for unit, entry in entries if entry is not None and sizes.get(entry.shard) == entry.size
            }

    def recorded(self, unit: int) -> LedgerEntry | None:
        """The entry of a unit, whether or not its shard exists; None without a valid entry."""
        try:
            return LedgerEntry.parse(self.folder.read_bytes(entry_name(self.kind, unit)))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def units(self) -> set[int]:
        """Numbers of the units that have an entry, from the folder's listing only."""
        names = self.folder.names()
        return {
            int(number)
            for name in names
            if name.startswith(f"{self.kind}-")
            and (number := name[len(self.kind) + 1 : -5]).isdigit()
            and name.endswith(".json")
        }

    def reopen(self, entry: LedgerEntry) -> None:
        """Mark a unit for a retry, which keeps the samples in its shard."""
        self.write(replace(entry, reopened=True))

    def write(self, entry: LedgerEntry) -> None:
        self.folder.write_bytes(entry_name(self.kind, entry.unit), encode_json(asdict(entry)))

    def index(self, entries: list[LedgerEntry], fingerprint: str) -> bytes:
        """The list of all shards; it is written last: its presence says that the output is complete."""
        shards = [{"shard": e.shard, "samples": e.samples, "size": e.size, "sha256": e.sha256} for e in entries]
        statuses = dict(sum((Counter(entry.statuses) for entry in entries), Counter()))
        index = {"kind": self.kind, "fingerprint": fingerprint, "samples": sum(e.samples for e in entries)}
        corrected = sum(entry.corrected for entry in entries)
        counts = {"statuses": statuses, **({"corrected": corrected} if corrected else {})}
        return encode_json({**index, **counts, "shards": shards})


def _without_labels(settings: Mapping[str, Any]) -> dict[str, Any]:
    inputs = settings.get("inputs")
    return {**settings, "inputs": inputs.get("count") if isinstance(inputs, dict) else inputs}


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """One line for every setting that differs: `method.class_weight: 1.21 -> 1.0`; digests are not shown."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(set(before) | set(now))
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
        ]
    if before == now:
        return []
    if before is not None and now is not None and name.rpartition(".")[2] == PLUGIN:
        return [f"{name}: {CHANGED_PLUGIN}"]
    if isinstance(before, str) and isinstance(now, str) and _DIGEST.fullmatch(before) and _DIGEST.fullmatch(now):
        return [f"{name}: {CHANGED_CONTENT}"]
    return [f"{name}: {before} -> {now}"]
