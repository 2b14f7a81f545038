"""The captioning stage: a sentence for every (image, class), written once and never again."""

import hashlib
import json
from collections.abc import Iterator

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.errors import SettingError
from pseudolabel.records import Sample
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.lock import lock_output
from pseudolabel.sources.entry import BadSample, Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.prefetch import prefetch
from pseudolabel.stages.progress import show_progress
from pseudolabel.stages.units import Rank
from pseudolabel.text.blip import BlipCaptioner
from pseudolabel.text.captions import load_captions
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

IMAGES_PER_FILE = 256
READ_AHEAD = 32


def write_captions(experiment: Experiment, rank: Rank) -> int:
    """Caption this rank's share of the images that have no captions yet, into the folder `captions.source`.

    Images that cannot be read are left out; `cams` records them. A run that was stopped loses the file it was at.

    Returns:
        How many captions this rank wrote.

    Raises:
        SettingError: if `captions.source` names no folder.
    """
    target = experiment.captions.source
    if target == "none" or target.endswith(".jsonl"):
        raise SettingError(f"--captions.source '{target}': name the folder that the captions shall be written to")
    vocabulary = load_vocabulary(experiment.vocabulary)
    source = open_source(experiment.source, vocabulary)
    folder = Folder(target)
    folder.prepare()
    with lock_output(folder, rank.index):
        known = load_captions(target) if any(name.endswith(".jsonl") for name in folder.names()) else {}
        missing = [entry for entry in source.entries if _classes(entry, vocabulary, known)]
        chunks = list(batched(missing, IMAGES_PER_FILE))[rank.index :: rank.count]
        return _write_chunks(experiment, rank, source, vocabulary, folder, chunks, known) if chunks else 0


def _classes(entry: Entry, vocabulary: Vocabulary, known: dict[tuple[str, str], str]) -> list[int]:
    """The entry's classes that have no caption."""
    if entry.problem is not None:
        return []
    return [index for index in entry.classes if (entry.key, vocabulary.names[index]) not in known]


def _write_chunks(
    experiment: Experiment,
    rank: Rank,
    source: Source,
    vocabulary: Vocabulary,
    folder: Folder,
    chunks: list[tuple[Entry, ...]],
    known: dict[tuple[str, str], str],
) -> int:
    captioner, written, seen, failed = BlipCaptioner(experiment.captions, rank.device), 0, 0, 0

    def read(entry: Entry) -> tuple[Entry, Sample | None]:
        try:
            return entry, source.read(entry)
        except BadSample:
            return entry, None

    entries = (entry for chunk in chunks for entry in chunk)
    samples = prefetch(read, entries, experiment.work.loaders, READ_AHEAD)
    with show_progress("captions", sum(map(len, chunks)), show=rank.is_main) as meter:
        for chunk in chunks:
            pairs: list[tuple[Sample, int]] = []
            for _ in chunk:
                entry, sample = next(samples)
                seen, failed = seen + 1, failed + (sample is None)
                if sample is not None:
                    pairs += [(sample, index) for index in _classes(entry, vocabulary, known)]
                meter.update(seen, failed)
            lines = list(_caption(captioner, pairs, vocabulary, experiment.captions.batch))
            name = hashlib.sha256(chunk[0].key.encode()).hexdigest()[:12]
            folder.write_bytes(f"captions-{name}-{len(lines)}.jsonl", "".join(lines).encode())
            written += len(lines)
    return written


def _caption(
    captioner: BlipCaptioner, pairs: list[tuple[Sample, int]], vocabulary: Vocabulary, batch: int
) -> Iterator[str]:
    for chunk in batched(pairs, batch):
        leads = [vocabulary.template.format(vocabulary.prompt(index)) for _, index in chunk]
        sentences = captioner([sample.image for sample, _ in chunk], leads)
        for (sample, index), sentence in zip(chunk, sentences, strict=True):
            row = {"key": sample.key, "class": vocabulary.names[index], "caption": sentence}
            yield json.dumps(row, ensure_ascii=False) + "\n"
