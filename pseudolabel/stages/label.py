"""The labelling stage: images with labels in, shards of what the method makes of them out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from pseudolabel.config import Experiment
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SettingError
from pseudolabel.io.folder import Folder
from pseudolabel.refine.engines import resolve_engines
from pseudolabel.shards.ledger import digest
from pseudolabel.shards.others import check_shard_folder
from pseudolabel.shards.packing import TAR
from pseudolabel.shards.sample import encode
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.job import open_job
from pseudolabel.stages.labellers.table import LABELLERS, Labeller, kind_of
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import Rank, Unit, UnitDigests, cut_units, describe_words
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.text.captions import Captions, check_complete, check_images, load_captions, match_captions
from pseudolabel.vocabulary import Vocabulary


def write_labels(
    experiment: Experiment, rank: Rank, retry_failed: bool = False, on_open: Callable[[], object] = lambda: None
) -> Summary | None:
    """Label this rank's share of the work units, into OUT/cams, OUT/masks or OUT/segments as the method has it.

    Args:
        experiment: everything that is to be done.
        rank: who this process is.
        retry_failed: also retry the failed samples of finished units.
        on_open: called once the output folder is this run's, and its settings are noted there.

    Returns:
        The summary of the whole job where this call finished it, None where other ranks are still at work.
    """
    experiment = resolve_engines(experiment, rank.device)
    vocabulary = choose_vocabulary(experiment, say=rank.is_main)
    kind = kind_of(experiment)
    # Regions need no labels.
    unlabelled = "background" if kind == "segments" else experiment.source.unlabelled
    source = open_source(replace(experiment.source, unlabelled=unlabelled), vocabulary)
    captions = _captions(experiment, source, vocabulary)
    check_shard_folder(Folder(experiment.out) / kind, kind)
    model = load_model(experiment.model, rank.device)
    labeller = LABELLERS[experiment.method](experiment, model, vocabulary, captions)
    units = cut_units(source.entries, experiment.work.unit)
    inputs = Inputs(vocabulary, captions)
    settings = run_settings(experiment, model, labeller, units, inputs)
    about = describe_run(experiment, model, vocabulary)
    folder, left_out = Folder(experiment.out) / kind, source.left_out
    with open_job(folder, kind, settings, units, inputs.digest, rank, retry_failed, TAR, left_out, about) as job:
        on_open()
        members = partial(encode, kind=kind, vocabulary=vocabulary)
        try:
            work_through(job, source, experiment.work.loaders, labeller, members)
        except torch.OutOfMemoryError as error:
            raise SettingError(
                f"out of memory on {rank.device} with --work.batch {experiment.work.batch}; give a smaller one, or "
                f"--model.dtype bfloat16: every finished shard is safe, and the run goes on with it. ({error})"
            ) from error
        return job.finish()


@dataclass(frozen=True)
class Inputs:
    """What the labels say about the images; `captions` are None where prompts go without."""

    vocabulary: Vocabulary
    captions: Captions | None

    @cached_property
    def digest(self) -> UnitDigests:
        """Digests a unit's keys, classes and captions."""
        return UnitDigests(self._describe)

    def _describe(self, entry: Entry) -> list[Any]:
        if self.captions is None:
            return [entry.key, *entry.classes, *[""] * len(entry.classes)]
        texts = [self.captions.get((entry.key, self.vocabulary.names[index]), "") for index in entry.classes]
        texts += [self.captions[entry.key, ""]] if (entry.key, "") in self.captions else []
        return [entry.key, *entry.classes, *texts]


def run_settings(
    experiment: Experiment,
    model: DiffusionModel,
    labeller: Labeller,
    units: Sequence[Unit[Entry]],
    inputs: Inputs,
) -> dict[str, Any]:
    """Everything that the shards' meaning depends on; see `describe_run` for the rest."""
    return {
        "inputs": {
            "count": sum(len(unit.entries) for unit in units),
            "sha256": digest([inputs.digest(unit) for unit in units]),
        },
        "unlabelled": experiment.source.unlabelled,
        "vocabulary": describe_words(inputs.vocabulary),
        "model": {"image_size": model.image_size, "weights": fingerprint(experiment.model)},
        "method": experiment.method,
        experiment.method: labeller.settings(),
        "captions": "none" if inputs.captions is None else "given",
        "work": {"unit": experiment.work.unit, "seed": experiment.work.seed},
    }


def describe_run(experiment: Experiment, model: DiffusionModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """What may differ when a run goes on: names, and what moves no more than the last bits of its numbers."""
    chosen = experiment.model
    return {
        "vocabulary": vocabulary.name,
        "model": {
            "name": chosen.name,
            "revision": chosen.revision,
            "variant": chosen.variant,
            "dtype": str(model.dtype).removeprefix("torch."),
            "compile": chosen.compile,
        },
        "device": model.device.type,
        "work": {"batch": experiment.work.batch},
    }


def _captions(experiment: Experiment, source: Source, vocabulary: Vocabulary) -> Captions | None:
    if experiment.captions.source == "none":
        return None
    path = experiment.captions.source
    written = load_captions(path)
    captions = match_captions(written, source.entries, vocabulary, path)
    check_images(written, captions, source.entries, path)
    if experiment.method != "diffseg":  # which takes an image's own caption where there is one
        check_complete(captions, source.entries, vocabulary, path)
    return captions
