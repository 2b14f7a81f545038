"""Write the masks of a run, with their images and classes, in a format that other tools read."""

import hashlib
import os
import tarfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

from pseudolabel.errors import SampleError, SettingError, ShardError
from pseudolabel.exports.format import Classes, Format, Packing, Rows, Settings
from pseudolabel.exports.formats import FORMATS
from pseudolabel.exports.names import FormatName
from pseudolabel.exports.result import ExportResult
from pseudolabel.exports.sample import read_sample
from pseudolabel.exports.units import ExportFolder, Unit
from pseudolabel.io.files import is_folder, join
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.reasons import first_by_reason
from pseudolabel.io.tar import read_tar
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.runtime.progress import ProgressLine, show_progress
from pseudolabel.shards.classes import read_run, recorded_classes
from pseudolabel.shards.find import find_shards, folder_of, hint, warn_if_unfinished
from pseudolabel.shards.index import load_index
from pseudolabel.shards.order import choose_keys
from pseudolabel.shards.packing import DigestedFile

MISSING = "missing"  # status of a key that no shard has


def export(
    out: str | os.PathLike[str],
    to: FormatName,
    folder: str | os.PathLike[str],
    *,
    split: float | None = None,
    ignore: int | None = None,
    pieces: bool = False,
    polygons: bool = False,
    keys: Collection[str] | None = None,
    worst: int | None = None,
) -> ExportResult:
    """Write the masks of a run, with their images, in a format that other tools read; docs/export.md describes them.

    The folder is new, empty, or an earlier export with the same settings, which is then completed: what is there
    already is not written again, and files that others wrote or changed are not overwritten.

    Args:
        out: the output folder of `generate` or `refine`, or a folder of mask shards.
        to: the format: png, voc, coco, yolo, labelstudio, cvat or hf.
        folder: where to write; a local path.
        split: share of the samples for training, between 0 and 1; the others are for validation. A sample's key alone
            decides. None does not split them.
        ignore: the label that ignored pixels (255) get: 0 for background, a class's label, or 255 to keep them. None is
            the format's own default.
        pieces: for coco: each connected piece of a class is an instance; else each class of an image is one.
        polygons: for coco: outlines in place of run lengths, but for instances with holes.
        keys: only these samples; None for all.
        worst: only so many samples, those of the least confidence; instead of `keys`.

    Returns:
        Counts and failures. `lines()` gives what the command prints.

    Raises:
        SettingError: if an option is out of range, or not for this format.
        ShardError: if there are no mask shards, nothing says what their classes are, or `worst` finds no confidence.
        OutputError: if the folder cannot be used.
    """
    chosen = _check_options(to, split, {"pieces": pieces, "polygons": polygons})
    shards = _open_shards(os.fspath(out))
    label = _check_ignore(ignore, chosen, to, shards.names)
    classes = Classes(shards.names, label == IGNORE)
    chosen.check(classes)
    name = Path(folder).resolve().name
    settings = Settings(classes, split, name, pieces, polygons, shards.run)
    target = ExportFolder(os.fspath(folder))
    if worst is not None:
        keys = _least_confident(shards.folder, worst, keys)
    wanted = None if keys is None else frozenset(keys)
    noted = {
        "format": to,
        "source": shards.identity,
        "classes": shards.names,
        "split": split,
        "ignore": label,
        "pieces": pieces,
        "polygons": polygons,
        "keys": None if wanted is None else _digest(wanted),
    }
    with target.open(noted):
        return _Export(chosen, settings, label, shards, target, wanted).run()


def _least_confident(masks: str, count: int, keys: Collection[str] | None) -> Collection[str]:
    if count < 1 or keys is not None:
        raise SettingError(f"`worst` {count}: give the number of samples, at least 1, and no `keys` beside it")
    return choose_keys(Folder(masks), count, "worst")


@dataclass(frozen=True)
class _Shards:
    """The mask shards of a run.

    Attributes:
        paths: of the shards, in order.
        counts, stamps: number of samples, and what tells whether it has changed, of each shard.
        names: of the classes by label.
        run: what `run.json` holds; empty where there is none.
    """

    folder: str
    paths: Sequence[str]
    counts: Sequence[int]
    stamps: Sequence[list[int]]
    names: tuple[str, ...]
    run: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """What tells this run from others."""
        where = self.folder if "://" in self.folder else os.path.abspath(self.folder)
        return str(self.run.get("fingerprint") or where)


def _open_shards(out: str) -> _Shards:
    inner = join(out, "masks")
    folder = inner if is_folder(inner) else out
    paths = find_shards(folder)
    for path in paths:
        if path.rpartition("/")[2].startswith("segments-"):
            raise ShardError(f"'{path}' holds regions without classes, which no format can name; export masks")
    indexes = [load_index(path) for path in paths]
    for path, index in zip(paths, indexes, strict=True):
        if len(index) and index.holds_cams:
            raise ShardError(f"'{path}' holds class activation maps; `pseudolabel refine` makes masks of them")
    counts = [len(index) for index in indexes]
    if not sum(counts):
        raise ShardError(f"the shards in '{folder}' hold no samples; `pseudolabel failures {out}` lists why")
    warn_if_unfinished(dict(zip(paths, counts, strict=True)))
    beside = Folder(folder_of(paths[0]))
    names = next((recorded.names for recorded in recorded_classes(beside)), ())
    if not names:
        raise ShardError(
            f"no file in '{beside.path}' names the classes of the masks; write 'id2label.json' there, such as "
            '{"0": "background", "1": "dog"}'
        )
    return _Shards(folder, paths, counts, [list(index.stamp) for index in indexes], names, read_run(beside))


def _check_options(to: FormatName, split: float | None, flags: Mapping[str, bool]) -> Format:
    if to not in FORMATS:
        raise SettingError(f"`to` {to}: give one of {', '.join(FORMATS)}")
    if split is not None and not 0 < split < 1:
        raise SettingError(f"`split` {split}: give the share of training samples, more than 0 and less than 1")
    for name, is_set in flags.items():
        if is_set and name not in FORMATS[to].options:
            known = [other for other, format_ in FORMATS.items() if name in format_.options]
            raise SettingError(f"`{name}` is for `to` {', '.join(known)}, not for {to}")
    package, extra = FORMATS[to].needs
    if package and find_spec(package) is None:
        raise SettingError(f"`to` {to} needs {package}; say: pip install 'pseudolabel[{extra}]'")
    return FORMATS[to]


def _check_ignore(ignore: int | None, chosen: Format, to: str, names: Sequence[str]) -> int:
    label = chosen.ignore if ignore is None else ignore
    if not (BACKGROUND <= label < len(names) or label == IGNORE):
        raise SettingError(f"`ignore` {label}: give 0 for background, a class's label up to {len(names) - 1}, or 255")
    if label == IGNORE and not chosen.can_ignore:
        raise SettingError(f"`ignore` 255: {to} cannot say that pixels are ignored; give 0, or a class's label")
    return label


def _digest(keys: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(keys)).encode("utf-8", "surrogatepass")).hexdigest()


class _Export:
    """An export at work; it is `Collected` for its format."""

    def __init__(
        self,
        chosen: Format,
        settings: Settings,
        ignore: int,
        shards: _Shards,
        target: ExportFolder,
        wanted: frozenset[str] | None,
    ) -> None:
        self._format, self._settings, self._ignore = chosen, settings, ignore
        self._shards, self._target, self._wanted = shards, target, wanted
        self._names = [path.rpartition("/")[2].removesuffix(".tar") for path in shards.paths]

    def run(self) -> ExportResult:
        """Export what is not exported yet, then write the files about all samples."""
        began, total, done, failed, written = time.monotonic(), sum(self._shards.counts), 0, 0, 0
        with show_progress("export", total) as progress:
            for number, count in enumerate(self._shards.counts):
                before = self._target.read(self._names[number])
                is_done = before is not None and before.stamp == self._shards.stamps[number]
                unit = before if before is not None and is_done else self._do(number, before, progress, done, failed)
                done, failed = done + count, failed + len(unit.failures)
                progress.update(done, failed)
                if is_done:
                    progress.restart()  # the rate is that of what this call exports
                else:
                    self._target.write(self._names[number], unit, before)
                    written += len(unit.samples)
        self._format.finish(self, self._settings)
        with self.write("classes.json") as file:
            file.write(encode_json({"classes": self._settings.classes.listed()}))
        return self._result(time.monotonic() - began, written)

    def _do(self, number: int, before: Unit | None, progress: ProgressLine, done: int, failed: int) -> Unit:
        path, unit = self._shards.paths[number], Unit(self._shards.stamps[number])
        hashes = before.files if before is not None else {}
        folder, _, name = path.rpartition("/")
        with ExitStack() as stack:
            packed = _Packed(self._format.pack, self._settings, self._names[number], self._target, hashes, stack)
            try:
                file = stack.enter_context(Folder(folder or ".").open(name))
                for key, members in read_tar(file):
                    self._export(path, key, members, unit, hashes, packed)
                    now = len(unit.samples) + len(unit.failures) + unit.left_out
                    progress.update(done + now, failed + len(unit.failures))
            except (tarfile.TarError, OSError) as error:
                raise ShardError(f"shard '{path}' cannot be read: {error}; {hint(path)}") from error
            packed.close()
        unit.packed = packed.hashes()
        return unit

    def _export(
        self,
        path: str,
        key: str,
        members: Mapping[str, bytes],
        unit: Unit,
        before: Mapping[str, str],
        packed: "_Packed",
    ) -> None:
        if self._wanted is not None and key not in self._wanted:
            unit.left_out += 1
            return
        settings = self._settings
        try:
            sample = read_sample(path, key, members, len(settings.classes.names), self._ignore, settings.share)
            files, note, row = self._format.encode(sample, settings)
            obstacle = next(filter(None, map(self._target.obstacle, files)), "")
            if obstacle:
                raise SampleError("name", obstacle)
        except SampleError as error:
            unit.failures.append({"key": key, "status": error.status, "message": str(error)})
            return
        written = self._target.put(files, before)
        if row is not None:
            packed.add(sample.split, row)
        unit.samples.append({"key": key, "split": sample.split, "note": dict(note), "files": written})

    def parts(self) -> Iterator[tuple[str, Iterator[Mapping[str, Any]]]]:
        """The notes by shard."""
        for name in self._names:
            unit = self._target.read(name)
            samples = unit.samples if unit is not None else []
            yield name, ({"key": sample["key"], "split": sample["split"], **sample["note"]} for sample in samples)

    def notes(self, split: str) -> Iterator[Mapping[str, Any]]:
        """The notes of a split's samples."""
        for _, notes in self.parts():
            yield from (note for note in notes if note["split"] == split)

    def write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file that appears in the export when it is complete."""
        return self._target.collect(name)

    def read(self, name: str) -> bytes:
        """The bytes of a sample's file."""
        return self._target.folder.read_bytes(name)

    def _result(self, seconds: float, written: int) -> ExportResult:
        statuses, first, found = Counter[str](), dict[str, list[str]](), dict.fromkeys(self._settings.splits, 0)
        left_out, missing = 0, set(self._wanted or ())
        for name in self._names:
            unit = self._target.read(name)
            if unit is None:
                continue
            left_out += unit.left_out
            statuses += unit.statuses
            for sample in unit.samples:
                found[sample["split"]] += 1
            missing -= {sample["key"] for sample in [*unit.samples, *unit.failures]}
            first = first_by_reason(_messages(first, unit))
        if missing:
            statuses[MISSING] = len(missing)
            first = first_by_reason(
                [*_listed(first), *((MISSING, f"{key}: no shard has it") for key in sorted(missing))]
            )
        samples = sum(found.values())
        counts = {split: count for split, count in found.items() if split}
        return ExportResult(
            self._target.folder.path, samples, counts, dict(statuses), left_out, written, round(seconds, 2), first
        )


class _Packed:
    """The files that hold all samples of a shard, one for each split; each begins with its first sample."""

    def __init__(
        self,
        packing: Packing | None,
        settings: Settings,
        shard: str,
        target: ExportFolder,
        before: Mapping[str, str],
        stack: ExitStack,
    ) -> None:
        self._packing, self._settings, self._shard = packing, settings, shard
        self._target, self._before, self._stack = target, before, stack
        self._files: dict[str, DigestedFile] = {}
        self._rows: dict[str, Rows] = {}

    def add(self, split: str, row: Mapping[str, Any]) -> None:
        assert self._packing is not None
        if split not in self._rows:
            name = self._packing.name(self._shard, split)
            self._files[name] = self._stack.enter_context(self._target.pack(name, self._before))
            self._rows[split] = self._packing.open(cast(BinaryIO, self._files[name]), self._settings)
        self._rows[split].add(row)

    def close(self) -> None:
        for rows in self._rows.values():
            rows.close()

    def hashes(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in self._files.items()}


def _listed(first: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    return ((status, message) for status, messages in first.items() for message in messages)


def _messages(first: Mapping[str, Sequence[str]], unit: Unit) -> Iterator[tuple[str, str]]:
    yield from _listed(first)
    yield from ((failure["status"], f"{failure['key']}: {failure['message']}") for failure in unit.failures)
