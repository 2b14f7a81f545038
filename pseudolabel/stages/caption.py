"""The captioning stage: a sentence for every (image, class), written once and never again."""

import hashlib
import json

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
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.captions import load_captions
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

IMAGES_PER_FILE = 256
READ_AHEAD = 32


def write_captions(experiment: Experiment, rank: Rank) -> int:
    """Caption this rank's share of the images that have no captions yet, into the folder `captions.source`.

    Images that cannot be read get the empty caption and are tried again the next time; `cams` records them. A run that
    was stopped loses the file it was at.

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
        found = load_captions(target) if any(name.endswith(".jsonl") for name in folder.names()) else {}
        known = {pair for pair, caption in found.items() if caption}
        # The cut does not depend on what is known, which other ranks may be adding to.
        share = list(batched(source.entries, IMAGES_PER_FILE))[rank.index :: rank.count]
        missing = [tuple(entry for entry in chunk if _classes(entry, vocabulary, known)) for chunk in share]
        chunks = [chunk for chunk in missing if chunk]
        return _write_chunks(experiment, rank, source, vocabulary, folder, chunks, known) if chunks else 0


def _classes(entry: Entry, vocabulary: Vocabulary, known: set[tuple[str, str]]) -> list[int]:
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
    known: set[tuple[str, str]],
) -> int:
    captioner, written, seen, failed = Captioner(experiment.captions, rank.device), 0, 0, 0

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
            lines: list[str] = []
            for _ in chunk:
                entry, sample = next(samples)
                seen, failed = seen + 1, failed + (sample is None)
                classes = _classes(entry, vocabulary, known)
                if sample is not None:
                    pairs += [(sample, index) for index in classes]
                else:
                    lines += [_line(entry.key, vocabulary.names[index], "") for index in classes]
                meter.update(seen, failed)
            lines += _caption(captioner, pairs, vocabulary)
            data = "".join(lines).encode()
            folder.write_bytes(f"captions-{hashlib.sha256(data).hexdigest()[:16]}.jsonl", data)
            written += len(pairs)
    return written


def _caption(captioner: Captioner, pairs: list[tuple[Sample, int]], vocabulary: Vocabulary) -> list[str]:
    leads = [vocabulary.template.format(vocabulary.prompt(index)) for _, index in pairs]
    sentences = captioner([sample.image for sample, _ in pairs], leads)
    return [
        _line(sample.key, vocabulary.names[index], sentence)
        for (sample, index), sentence in zip(pairs, sentences, strict=True)
    ]


def _line(key: str, name: str, caption: str) -> str:
    return json.dumps({"key": key, "class": name, "caption": caption}, ensure_ascii=False) + "\n"
