"""The captioning stage: images with labels in, a caption for every (image, class) out; none is written twice."""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, overload

import torch
from PIL import Image

from pseudolabel.config import Experiment
from pseudolabel.errors import DeviceMemoryError, SettingError
from pseudolabel.io.files import join
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import digest
from pseudolabel.io.lock import lock_output
from pseudolabel.records import Sample
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.ledger import INDEX, SKIPPED, Ledger, entry_name, shard_name
from pseudolabel.shards.others import SUMMARY, check_shard_folder
from pseudolabel.shards.packing import CAPTIONS
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.job import open_job
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import UnitDigests, cut_units
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.captions import Captions, load_captions, match_captions
from pseudolabel.vocabulary import Vocabulary

KIND = "captions"
IMAGES_AT_ONCE = 64  # their captions are grouped by the prefix's length
_SHARD = re.compile(rf"{KIND}-\d{{6,12}}\.jsonl")

log = logging.getLogger(__name__)


def write_captions(experiment: Experiment, rank: Rank, retry_failed: bool = False) -> Summary | None:
    """Caption the images assigned to this rank that have no captions yet, into JSONL files in `captions.source`.

    Captions in other files of the folder, such as ones written by hand or for a shorter list of images, stay and are
    not written again.

    Args:
        experiment: the data, the captioner and the folder.
        rank: this process.
        retry_failed: also retry the images of finished files that could not be read.

    Returns:
        The summary of the complete job if this call finished it; None while other ranks are at work, or if no caption
        is missing.

    Raises:
        SettingError: if `captions.source` names no folder.
        OutputError: if the folder cannot be used, or holds captions by another captioner or of other prompts.
    """
    target = experiment.captions.source
    if target == "none" or target.endswith(".jsonl"):
        raise SettingError(f"`captions.source` '{target}': name the folder that the captions shall be written to")
    vocabulary = choose_vocabulary(experiment, say=rank.is_main)
    source = open_source(experiment.source, vocabulary)
    folder = Folder(target, "`captions.source`")
    captioner = Captioner(experiment.captions, rank.device)
    if rank.is_main:
        folder.prepare()
        with lock_output(folder, rank.index):
            _keep_earlier(folder, _settings(experiment, captioner, vocabulary, _missing(source, folder, vocabulary)))
    rank.barrier()
    entries = _missing(source, folder, vocabulary)
    if all(entry.problem is not None and entry.problem.status == SKIPPED for entry in entries):
        log.info("captions: every image of '%s' has its captions in '%s'", experiment.source.path, target)
        return None
    units = cut_units(entries, experiment.work.unit)
    inputs_of = UnitDigests(lambda entry: _describe(entry, vocabulary))
    settings = _settings(experiment, captioner, vocabulary, entries)
    about = {"model": experiment.captions.model, "batch": experiment.captions.batch, "device": rank.device.type}

    def caption(samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[str]]]:
        for group in batched(samples, IMAGES_AT_ONCE):
            pairs = [(sample, index) for sample in group for index in sample.classes]
            sentences = iter(captioner(_Images([one for one, _ in pairs]), [_prefix(n, vocabulary) for _, n in pairs]))
            yield from ((sample, list(islice(sentences, len(sample.classes)))) for sample in group)

    def encode(sample: Sample, sentences: list[str]) -> dict[str, bytes]:
        names = (vocabulary.names[index] for index in sample.classes)
        return {name: sentence.encode() for name, sentence in zip(names, sentences, strict=True)}

    with open_job(
        folder, KIND, settings, units, inputs_of, rank, retry_failed, CAPTIONS, source.left_out, about
    ) as job:
        try:
            work_through(job, source, experiment.work.loaders, caption, encode)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"out of memory on {rank.device}; give a smaller `captions.batch` than {experiment.captions.batch}. "
                f"Every finished file is safe, and the run resumes with them. ({error})"
            ) from error
        return job.finish()


class _Images(Sequence[Image.Image]):
    """Images of samples, decoded when they are asked for: a batch at a time, not all of them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> "_Images": ...
    def __getitem__(self, index: int | slice) -> "Image.Image | _Images":
        return _Images(self._samples[index]) if isinstance(index, slice) else self._samples[index].image


def _missing(source: Source, folder: Folder, vocabulary: Vocabulary) -> list[Entry]:
    """Images without captions in files other than this job's shards, with the classes that have none; failures, too."""
    known: Captions = {}
    for name in folder.names():
        if name.endswith(".jsonl") and not _SHARD.fullmatch(name):
            known |= {pair: text for pair, text in load_captions(join(folder.path, name)).items() if text}
    known = match_captions(known, source.entries, vocabulary, folder.path)
    missing: list[Entry] = []
    for entry in source.entries:
        classes = tuple(index for index in entry.classes if (entry.key, vocabulary.names[index]) not in known)
        is_unlabelled = not entry.classes and not source.background_where_unlabelled
        if classes or is_unlabelled or entry.problem is not None:
            missing.append(replace(entry, classes=classes))
    return missing


def _settings(
    experiment: Experiment, captioner: Captioner, vocabulary: Vocabulary, entries: Sequence[Entry]
) -> dict[str, Any]:
    """Everything that the captions depend on but the last bits of the captioner's numbers."""
    config = experiment.captions
    return {
        "inputs": {"count": len(entries), "sha256": digest([_describe(entry, vocabulary) for entry in entries])},
        "prefixes": {name: _prefix(index, vocabulary) for index, name in enumerate(vocabulary.names) if index},
        "captioner": {
            "weights": captioner.fingerprint(),
            "max_new_tokens": config.max_new_tokens,
            "max_length": config.max_length,
            "beams": config.beams,
        },
        "work": {"unit": experiment.work.unit},
    }


def _describe(entry: Entry, vocabulary: Vocabulary) -> list[str]:
    return [entry.key, *(vocabulary.names[index] for index in entry.classes)]


def _prefix(index: int, vocabulary: Vocabulary) -> str:
    """The beginning of a class's captions, such as `a photograph of dog`."""
    return vocabulary.template.format(vocabulary.prompt(index))


def _keep_earlier(folder: Folder, settings: Mapping[str, Any]) -> None:
    """Rename the files of an earlier run over other images or labels by their content, so that their captions stay.

    Files by another captioner, or of other prefixes, are left alone: the job refuses them.
    """
    check_shard_folder(folder, KIND)
    ledger = Ledger(folder, KIND)
    before = ledger.settings()
    if before is None or before.get("inputs") == settings["inputs"]:
        return
    prefixes = settings["prefixes"]
    is_same = all(before.get(name) == settings[name] for name in ("captioner", "work"))
    if not is_same or any(prefixes.get(name, prefix) != prefix for name, prefix in before.get("prefixes", {}).items()):
        return
    for name in {INDEX, SUMMARY} & set(folder.names()):
        folder.remove(name)
    for unit in sorted(ledger.units()):
        shard = shard_name(KIND, unit, CAPTIONS.suffix)
        data = folder.read_bytes(shard) if folder.exists(shard) else b""
        name = f"{KIND}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
        if data and not folder.exists(name):
            folder.write_bytes(name, data)
        folder.remove(entry_name(KIND, unit))
        if folder.exists(shard):
            folder.remove(shard)
