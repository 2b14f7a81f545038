"""The importing stage: images with labels, and score maps or masks of another program in; shards out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from pseudolabel.config import Experiment, SourceConfig
from pseudolabel.errors import SampleError, SourceError
from pseudolabel.io.files import Location, is_folder, join, read_bytes
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import read_mask
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_files
from pseudolabel.methods.registry import Outcome
from pseudolabel.records import IGNORE, LabelMap, Sample, ScoreMaps
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.classes import write_classes
from pseudolabel.shards.index import Stamp
from pseudolabel.shards.others import check_shard_folder
from pseudolabel.shards.packing import TAR
from pseudolabel.shards.sample import encode
from pseudolabel.sources.cam_files import CamFormat, decode_cam_files
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import open_source
from pseudolabel.stages.job import open_job
from pseudolabel.stages.predictions import AMBIGUOUS, match_files
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import UnitDigests, cut_units, describe_words
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.vocabulary import Vocabulary

FileKind = CamFormat | Literal["masks"]

UNLISTED = "of no listed image"
NO_FOLDER = "beside the images' folders, KEY/CLASS.png"


def import_files(
    experiment: Experiment, rank: Rank, folder: str, file_kind: FileKind, retry_failed: bool = False
) -> Summary | None:
    """Import the files of the work units assigned to this rank, as CAM shards or mask shards.

    Units whose labels or files (size and time) have changed since are done again.

    Args:
        experiment: names the images, the labels, the vocabulary and the output folder.
        rank: this process.
        folder: of the files.
        file_kind: the format of score maps, or `masks`.
        retry_failed: also retry the failed samples of finished units.

    Returns:
        The summary of the complete job if this call finished it; None while other ranks are at work.

    Raises:
        SourceError: if there is no such folder, or it holds no file of a listed image.
    """
    kind = "masks" if file_kind == "masks" else "cams"
    vocabulary = choose_vocabulary(experiment, say=rank.is_main)
    source = open_source(_takes(experiment.source, kind), vocabulary)
    files = find_import(folder, file_kind, source.entries)
    out, loaders = Folder(experiment.out) / kind, experiment.work.loaders
    check_shard_folder(out, kind)
    units = cut_units(source.entries, experiment.work.unit)
    digests = UnitDigests(lambda entry: [entry.key, *entry.classes, files.stamps(entry.key)])
    settings = {
        "inputs": {"count": len(source.entries)},
        "unlabelled": experiment.source.unlabelled,
        "vocabulary": describe_words(vocabulary),
        "method": f"import-{kind}",
        f"import-{kind}": {"format": "png" if kind == "masks" else file_kind},
        "work": {"unit": experiment.work.unit},
    }
    left_out, about = source.left_out + files.left_out, {"vocabulary": vocabulary.name}
    with open_job(out, kind, settings, units, digests, rank, retry_failed, TAR, left_out, about) as job:
        if kind == "masks" and rank.is_main:
            write_classes(out, vocabulary.names)
        work = partial(_work, Importer(files, file_kind, vocabulary), loaders=loaders)
        work_through(job, source, loaders, work, partial(encode, kind=kind, vocabulary=vocabulary))
        return job.finish()


def _takes(source: SourceConfig, kind: str) -> SourceConfig:
    """Score maps need labels; masks name their own classes."""
    return replace(source, unlabelled="background") if kind == "masks" else source


@dataclass(frozen=True)
class ImportFiles:
    """The files of a folder.

    Attributes:
        folder: the folder.
        by_key: paths below it of each image's files; several for PNG maps, one for the other formats.
        ambiguous: paths of an image that has several files where there should be one.
        left_out: other files, counted by reason.
    """

    folder: str
    by_key: Mapping[str, Sequence[str]]
    ambiguous: Mapping[str, Sequence[str]]
    left_out: LeftOut

    def stamps(self, key: str) -> list[Any]:
        """Name, size and time of each of an image's files, to find those that have changed."""
        found = []
        for name in self.by_key.get(key, ()):
            try:
                found.append([name, *Stamp.of(join(self.folder, name))])
            except OSError:
                found.append([name])
        return found

    def read(self, key: str) -> dict[str, bytes]:
        """The files of an image, by path.

        Raises:
            SampleError: `missing` if there is none, `several predictions` if it is not clear which.
        """
        if key in self.ambiguous:
            raise SampleError(AMBIGUOUS, f"'{key}' has several files: {', '.join(self.ambiguous[key])}")
        if key not in self.by_key:
            raise SampleError("missing", f"no file for '{key}' in '{self.folder}'")
        paths = [join(self.folder, name) for name in self.by_key[key]]
        return {path: read_bytes(Location(path)) for path in paths}


def find_import(folder: str, file_kind: FileKind, entries: Sequence[Entry]) -> ImportFiles:
    """Find the files of the images in a folder; a file belongs to an image as in `find_predictions`.

    Raises:
        SourceError: if there is no such folder, or it holds no file of a listed image.
    """
    if not is_folder(folder):
        raise SourceError(f"no folder '{folder}'; give the folder of the files to import")
    suffix = ".png" if file_kind == "masks" else f".{file_kind}"
    names, left_out = find_files(folder, suffix)
    # What a key is made of, and the files that belong to it.
    groups: dict[str, list[str]] = {}
    for name in names:
        place = name
        if file_kind == "png":
            place = f"{name.rpartition('/')[0]}{suffix}" if "/" in name else ""
        elif file_kind == "npz":
            place = f"{name.removesuffix('.cam.npz').removesuffix(suffix)}{suffix}"
        groups.setdefault(place, []).append(name)
    loose = groups.pop("", [])
    found, ambiguous = match_files(groups, entries)
    by_key = {key: groups[place] for key, place in found.items()}
    if file_kind != "png":  # KEY.npz and KEY.cam.npz
        ambiguous |= {key: own for key, own in by_key.items() if len(own) > 1}
    taken = {*found.values(), *(place for places in ambiguous.values() for place in places)}
    unlisted = sum(len(own) for place, own in groups.items() if place not in taken)
    reasons = {UNLISTED: unlisted, NO_FOLDER: len(loose)}
    left_out += LeftOut({reason: count for reason, count in reasons.items() if count})
    if not by_key and not ambiguous:
        others = f": {left_out}" if left_out.total else ""
        raise SourceError(
            f"'{folder}' holds no {suffix} file of the {len(entries):,} listed images{others}; a file is named as its "
            f"image or its key, such as '{entries[0].key}{'/CLASS' * (file_kind == 'png')}{suffix}'"
        )
    return ImportFiles(folder, by_key, ambiguous, left_out)


@dataclass(frozen=True)
class Importer:
    """Gives the imported result of a sample."""

    files: ImportFiles
    file_kind: FileKind
    vocabulary: Vocabulary

    def __call__(self, sample: Sample) -> tuple[Sample, Outcome]:
        """The sample with its score maps or its mask, or with the reason why there are none."""
        if not sample.classes and self.file_kind != "masks" and sample.key not in self.files.by_key:
            return sample, ScoreMaps(sample.key, (), np.zeros((0, 1, 1), np.float16), sample.size, final=True)
        try:
            files = self.files.read(sample.key)
            if self.file_kind == "masks":
                return sample, self._mask(sample, files)
            return sample, decode_cam_files(
                files, self.file_kind, sample.key, sample.classes, sample.size, self.vocabulary
            )
        except SampleError as error:
            return sample, error

    def _mask(self, sample: Sample, files: Mapping[str, bytes]) -> LabelMap:
        [(path, data)] = files.items()
        labels = read_mask(data, f"'{path}'")
        if labels.shape != sample.size:
            sizes = f"{labels.shape} where the image is {sample.size} (height, width)"
            raise SampleError("size_mismatch", f"'{path}': {sizes}")
        last = len(self.vocabulary)
        unknown = sorted({*labels.ravel().tolist()} - {*range(last + 1), IGNORE})
        if unknown:
            message = f"'{path}': label value {unknown[0]}; vocabulary '{self.vocabulary.name}' ends at {last}"
            raise SampleError("unknown_class", message)
        return LabelMap(sample.key, labels)


def _work(importer: Importer, samples: Iterable[Sample], loaders: int) -> Iterator[tuple[Sample, Outcome]]:
    return prefetch(importer, samples, loaders, loaders)
