"""The captioning stage: a sentence for every (image, class), written once and never again."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from pseudolabel.config import Experiment
from pseudolabel.errors import FAILED_SAMPLES_EXIT, SampleError, SettingError
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.lock import lock_output
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.reasons import first_by_reason, reason_lines
from pseudolabel.io.terminal import escaped
from pseudolabel.records import Failure, Sample
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.runtime.progress import show_progress
from pseudolabel.runtime.rank import Rank
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.captions import load_captions, match_captions
from pseudolabel.vocabulary import Vocabulary

IMAGES_PER_FILE = 256
READ_AHEAD = 32


@dataclass(frozen=True)
class Captioned:
    """What came of the images that had no captions yet.

    Attributes:
        out: folder of the captions.
        written: number of captions.
        statuses: how many images failed, by status.
        first_failures: the first of each status.
        left_out: files that were passed over, by reason.
    """

    out: str
    written: int
    statuses: dict[str, int] = field(default_factory=dict)
    first_failures: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Captioned") -> "Captioned":
        firsts = [(status, text) for one in (self, other) for status in one.statuses for text in one.first(status)]
        statuses = dict(Counter(self.statuses) + Counter(other.statuses))
        written = self.written + other.written
        return Captioned(self.out, written, statuses, first_by_reason(firsts), self.left_out)

    def first(self, status: str) -> list[str]:
        return self.first_failures.get(status, [])

    @property
    def exit_status(self) -> int:
        """0 where no image failed."""
        return FAILED_SAMPLES_EXIT if self.statuses else 0

    def lines(self) -> list[str]:
        """How many files were left out, the first failures by reason, and how many captions were written."""
        left_out = [str(LeftOut(self.left_out))] if self.left_out else []
        failed = sum(self.statuses.values())
        rest = f", {failed:,} images failed; fix them and give the same command again" if failed else ""
        last = escaped(f"captions: {self.written:,} written{rest} -> {self.out}")
        return [*left_out, *reason_lines(self.statuses, self.first_failures), last]


def write_captions(experiment: Experiment, rank: Rank) -> Captioned | None:
    """Caption this rank's share of the images that have no captions yet, into the folder `captions.source`.

    Images that cannot be read get the empty caption with the reason beside it, and are tried again the next time. A run
    that was stopped loses the file it was at.

    Returns:
        What came of all ranks' images, for the rank that ends last; None for the others.

    Raises:
        SettingError: if `captions.source` names no folder.
    """
    target = experiment.captions.source
    if target == "none" or target.endswith(".jsonl"):
        raise SettingError(f"`captions.source` '{target}': name the folder that the captions shall be written to")
    vocabulary = choose_vocabulary(experiment, say=rank.is_main)
    source = open_source(experiment.source, vocabulary)
    folder = Folder(target)
    folder.prepare()
    with lock_output(folder, rank.index):
        claim = rank.open_claim(folder)
        found = load_captions(target) if any(name.endswith(".jsonl") for name in folder.names()) else {}
        own = match_captions(found, source.entries, vocabulary, target)
        known = {pair for pair, caption in own.items() if caption}
        # The cut does not depend on what is known, which other ranks may be adding to.
        share = list(batched(source.entries, IMAGES_PER_FILE))[rank.index :: rank.count]
        missing = [tuple(entry for entry in chunk if _classes(entry, vocabulary, known)) for chunk in share]
        chunks = [chunk for chunk in missing if chunk]
        failures = [_failure(entry, *entry.problem) for chunk in share for entry in chunk if entry.problem is not None]
        written = _write_chunks(experiment, rank, source, vocabulary, folder, chunks, known, failures) if chunks else 0
        statuses = dict(Counter(failure.status for failure in failures))
        left_out = dict(source.left_out.reasons)
        first = first_by_reason((failure.status, f"{failure.key}: {failure.message}") for failure in failures)
        return _gather(folder, rank, claim, Captioned(target, written, statuses, first, left_out))


def _gather(folder: Folder, rank: Rank, claim: str, own: Captioned) -> Captioned | None:
    """What came of all ranks' images, where they have all ended; for one of them alone."""
    if not claim:
        return own
    folder.write_bytes(f"{claim}-{rank.index}", encode_json(asdict(own)))
    ended = [f"{claim}-{index}" for index in range(rank.count)]
    if not set(ended) <= set(folder.names()) or not folder.claim(claim):
        return None
    parts = [Captioned(**json.loads(folder.read_bytes(name))) for name in ended]
    return sum(parts[1:], parts[0])


def _failure(entry: Entry, status: str, message: str) -> Failure:
    return Failure(entry.key, entry.origin, status, message)


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
    failures: list[Failure],
) -> int:
    """Give the number of captions; what cannot be read is added to `failures`."""
    captioner, written, seen = Captioner(experiment.captions, rank.device), 0, 0

    def read(entry: Entry) -> tuple[Entry, Sample | Failure]:
        try:
            return entry, source.read(entry)
        except SampleError as error:
            return entry, _failure(entry, error.status, str(error))

    entries = (entry for chunk in chunks for entry in chunk)
    samples = prefetch(read, entries, experiment.work.loaders, READ_AHEAD)
    with show_progress("captions", sum(map(len, chunks)), show=rank.is_main) as progress:
        for chunk in chunks:
            pairs: list[tuple[Sample, int]] = []
            lines: list[str] = []
            for _ in chunk:
                entry, sample = next(samples)
                seen += 1
                classes = _classes(entry, vocabulary, known)
                if isinstance(sample, Sample):
                    pairs += [(sample, index) for index in classes]
                else:
                    failures.append(sample)
                    lines += [_line(entry.key, vocabulary.names[index], "", sample) for index in classes]
                progress.update(seen, len(failures))
            lines += _caption(captioner, pairs, vocabulary)
            data = "".join(lines).encode()
            name = f"captions-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
            OwnFiles(folder, rank.index, "`captions.source`").write({name: data})
            written += len(pairs)
    return written


def _caption(captioner: Captioner, pairs: list[tuple[Sample, int]], vocabulary: Vocabulary) -> list[str]:
    leads = [vocabulary.template.format(vocabulary.prompt(index)) for _, index in pairs]
    sentences = captioner([sample.image for sample, _ in pairs], leads)
    return [
        _line(sample.key, vocabulary.names[index], sentence)
        for (sample, index), sentence in zip(pairs, sentences, strict=True)
    ]


def _line(key: str, name: str, caption: str, failure: Failure | None = None) -> str:
    line: dict[str, object] = {"key": key, "class": name, "caption": caption}
    if failure is not None:
        line["failure"] = asdict(failure)
    return json.dumps(line, ensure_ascii=False) + "\n"
