"""The filtering stage: images in, classes that they may contain out, for data without labels."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from typing import Any

import torch

from pseudolabel.config import Experiment
from pseudolabel.errors import DeviceMemoryError, NoLabelsError
from pseudolabel.evaluation.label_scores import LabelScores
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import digest
from pseudolabel.io.jsonl import read_lines
from pseudolabel.io.metrics import record_metrics
from pseudolabel.io.tar import Members
from pseudolabel.records import Sample
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.precision import resolve_dtype
from pseudolabel.runtime.rank import Rank
from pseudolabel.shards.packing import JSONL
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import open_source
from pseudolabel.stages.job import open_job
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import Unit, UnitDigests, cut_units, describe_words
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.text.category_filter import CategoryFilter, Guess
from pseudolabel.text.class_rules import Classes
from pseudolabel.vocabulary import Vocabulary

KIND = "filter"
RULES = {"image": "by_image", "nouns": "by_nouns", "union": "classes"}  # the fields of a line that hold their classes


def filter_vocabulary(experiment: Experiment) -> Vocabulary:
    """The classes to choose from; folder names, which are labels, are not read."""
    return choose_vocabulary(replace(experiment, source=replace(experiment.source, labels="none")))


def write_classes(experiment: Experiment, rank: Rank, retry_failed: bool = False) -> Summary | None:
    """Guess the classes of the images assigned to this rank, into JSONL files in OUT/filter.

    Every line holds the image's key and classes, what the filter's rules found, its captions and their nouns. Nothing
    is taken from image-level labels, and images without them are filtered like the others.

    Args:
        experiment: all settings.
        rank: this process.
        retry_failed: also retry the images of finished units that could not be read.

    Returns:
        The summary of the complete job if this call finished it; None while other ranks are at work.
    """
    vocabulary = filter_vocabulary(experiment)
    source = open_source(replace(experiment.source, labels="none", unlabelled="background"), vocabulary)
    guesser = CategoryFilter(experiment.filter, experiment.captions, rank.device)
    units = cut_units(source.entries, experiment.work.unit)
    keys_of = UnitDigests(attrgetter("key"))
    settings = _settings(experiment, guesser, units, keys_of, vocabulary)
    about = _describe(experiment, rank.device, vocabulary)
    folder = Folder(experiment.out) / KIND

    def guess(samples: Iterable[Sample]) -> Iterator[tuple[Sample, Guess]]:
        for batch in batched(samples, experiment.work.batch):
            yield from zip(batch, guesser([sample.view for sample in batch], vocabulary), strict=True)

    with open_job(folder, KIND, settings, units, keys_of, rank, retry_failed, JSONL, source.left_out, about) as job:
        try:
            work_through(
                job,
                source,
                experiment.work.loaders,
                guess,
                lambda _, found: _encode(found, vocabulary),
                view=lambda image: image,
            )
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"out of memory on {rank.device}; give a smaller `captions.batch` than {experiment.captions.batch} or "
                f"`work.batch` than {experiment.work.batch}. Every finished file is safe, and the run resumes with "
                f"them. ({error})"
            ) from error
        return job.finish()


def _settings(
    experiment: Experiment,
    guesser: CategoryFilter,
    units: Sequence[Unit[Entry]],
    keys_of: UnitDigests,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """Everything that the files' meaning depends on; see `_describe` for the rest."""
    words = describe_words(vocabulary, with_synonyms=experiment.filter.nouns in ("synonyms", "both"))
    if experiment.filter.image == "tagclip":
        words["background_words"] = vocabulary.background_words
    return {
        "inputs": {
            "count": sum(len(unit.entries) for unit in units),
            "sha256": digest([keys_of(unit) for unit in units]),
        },
        "vocabulary": words,
        "filter": guesser.settings(),
        "work": {"unit": experiment.work.unit},
    }


def _describe(experiment: Experiment, device: torch.device, vocabulary: Vocabulary) -> dict[str, Any]:
    """Settings that may differ when a run resumes: names, and those that change only the last bits of its numbers."""
    chosen = experiment.filter
    return {
        "vocabulary": vocabulary.name,
        "filter": {"clip": chosen.clip, "spacy": chosen.spacy},
        "captions": {"model": experiment.captions.model, "batch": experiment.captions.batch},
        "dtype": str(resolve_dtype("auto", device)).removeprefix("torch."),
        "device": device.type,
        "work": {"batch": experiment.work.batch},
    }


def _encode(guess: Guess, vocabulary: Vocabulary) -> Members:
    def names(classes: Classes) -> list[str]:
        return [vocabulary.names[index] for index in classes]

    fields = {
        "classes": names(guess.classes),
        "by_image": names(guess.by_image),
        "by_nouns": names(guess.by_nouns),
        "captions": guess.captions,
        "nouns": guess.nouns,
        "image_scores": [round(score, 4) for score in guess.image_scores],
    }
    return {"json": json.dumps(fields, ensure_ascii=False).encode()}


def true_classes(experiment: Experiment) -> dict[str, Classes]:
    """The image-level labels that a filter is scored against, by key; none where the data have none.

    Those that the filter itself writes are none.

    Raises:
        SourceError: if the labels cannot be read.
    """
    labels = experiment.source.labels.rstrip("/")
    if labels in ("none", (Folder(experiment.out) / KIND).path):
        return {}
    try:
        source = open_source(experiment.source, filter_vocabulary(experiment))
    except NoLabelsError:
        return {}
    found = {entry.key: entry.classes for entry in source.entries if entry.problem is None}
    return found if any(found.values()) else {}


def score_classes(experiment: Experiment, truth: dict[str, Classes]) -> dict[str, LabelScores]:
    """Score OUT/filter against true labels, rule by rule and their union; also into OUT/metrics.json under `filter`.

    Raises:
        SourceError: if the files are not there.
    """
    vocabulary, folder = filter_vocabulary(experiment), Folder(experiment.out) / KIND
    fields = ("key", *RULES.values())
    lines = read_lines(folder.path, fields, "filtered image", "run 'pseudolabel filter' first")
    pairs: dict[str, list[tuple[list[int], Classes]]] = {rule: [] for rule in RULES}
    for key, *found in lines:
        for rule, names in zip(RULES, found, strict=True):
            if key in truth:
                pairs[rule].append(([vocabulary.index(name) for name in names], truth[key]))
    scores = {rule: LabelScores.count(counted, len(vocabulary)) for rule, counted in pairs.items()}
    report = {rule: counted.to_dict(vocabulary.names[1:]) for rule, counted in scores.items()}
    images = {"images": len(pairs["union"]), "split": experiment.source.split}
    record_metrics(experiment.out, KIND, {**images, "settings": asdict(experiment.filter), **report})
    return scores
