"""The labelling stage: images with labels in, shards of score maps or label maps out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from pseudolabel.config import Experiment, ModelConfig
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import DeviceMemoryError, SettingError
from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import digest
from pseudolabel.methods.checked_predictor import CheckedPredictor
from pseudolabel.methods.registry import Context, Method, Predictor
from pseudolabel.runtime.rank import Rank
from pseudolabel.runtime.versions import versions
from pseudolabel.shards.classes import write_classes
from pseudolabel.shards.ledger import PLUGIN, Ledger
from pseudolabel.shards.others import check_shard_folder
from pseudolabel.shards.packing import TAR
from pseudolabel.shards.sample import encode
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.job import failed_keys, open_job
from pseudolabel.stages.method import chosen_method
from pseudolabel.stages.samples import work_through
from pseudolabel.stages.summary import Summary
from pseudolabel.stages.units import Unit, UnitDigests, cut_units, describe_words
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.text.captions import Captions, check_complete, check_images, load_captions, match_captions
from pseudolabel.vocabulary import Vocabulary


def write_labels(
    experiment: Experiment, rank: Rank, retry_failed: bool = False, on_open: Callable[[], object] = lambda: None
) -> Summary | None:
    """Label the work units assigned to this rank, into OUT/cams, OUT/masks or OUT/segments as the method declares.

    Args:
        experiment: all settings.
        rank: this process.
        retry_failed: also retry the failed samples of finished units.
        on_open: called after the output folder is locked and the run's settings are written there.

    Returns:
        The summary of the complete job if this call finished it; None while other ranks are at work.
    """
    vocabulary = choose_vocabulary(experiment, say=rank.is_main)
    method, method_settings = chosen_method(experiment)
    kind = method.kind(method_settings)
    unlabelled = "background" if method.takes_unlabelled(method_settings) else experiment.source.unlabelled
    source = open_source(replace(experiment.source, unlabelled=unlabelled), vocabulary)
    captions = _captions(experiment, method, source, vocabulary)
    check_shard_folder(Folder(experiment.out) / kind, kind)
    model = load_model(experiment.model, rank.device) if method.needs_model else None
    work = experiment.work
    workers = work.workers or rank.cores()
    context = Context(rank.device, vocabulary, model, captions, work.batch, work.seed, work.loaders, workers)
    predictor = CheckedPredictor(method, context, method_settings)
    units = cut_units(source.entries, experiment.work.unit)
    inputs = Inputs(vocabulary, captions)
    settings = run_settings(experiment, method, model, predictor, units, inputs)
    about = describe_run(experiment, model, vocabulary, rank)
    folder, left_out = Folder(experiment.out) / kind, source.left_out
    with open_job(folder, kind, settings, units, inputs.digest, rank, retry_failed, TAR, left_out, about) as job:
        on_open()
        if kind == "masks" and rank.is_main:
            write_classes(folder, vocabulary.names)
        members = partial(encode, kind=kind, vocabulary=vocabulary)
        try:
            work_through(job, source, work.loaders, predictor, members, predictor.view)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"out of memory on {rank.device}, with one row at once as well; give a smaller `model.image_size`, or "
                f"`model.dtype` bfloat16. Every finished shard is safe. ({error})"
            ) from error
        return job.finish()


@dataclass(frozen=True)
class Inputs:
    """The labels of the images; `captions` is None if prompts have none."""

    vocabulary: Vocabulary
    captions: Captions | None

    @cached_property
    def digest(self) -> UnitDigests:
        """Digest of a unit's keys, classes and captions."""
        return UnitDigests(self._describe)

    def _describe(self, entry: Entry) -> list[Any]:
        if self.captions is None:
            return [entry.key, *entry.classes, *[""] * len(entry.classes)]
        texts = [self.captions.get((entry.key, self.vocabulary.names[index]), "") for index in entry.classes]
        texts += [self.captions[entry.key, ""]] if (entry.key, "") in self.captions else []
        return [entry.key, *entry.classes, *texts]


def run_settings(
    experiment: Experiment,
    method: Method,
    model: DiffusionModel | None,
    predictor: Predictor,
    units: Sequence[Unit[Entry]],
    inputs: Inputs,
) -> dict[str, Any]:
    """Everything that the shards' meaning depends on; see `describe_run` for the rest."""
    from_file = {PLUGIN: method.source} if method.source else {}
    return {
        **from_file,
        "inputs": {
            "count": sum(len(unit.entries) for unit in units),
            "sha256": digest([inputs.digest(unit) for unit in units]),
        },
        "unlabelled": experiment.source.unlabelled,
        "vocabulary": describe_words(inputs.vocabulary),
        "model": describe_model(experiment.model, model),
        "method": method.name,
        method.name: predictor.settings(),
        "captions": "none" if inputs.captions is None else "given",
        "work": {"unit": experiment.work.unit, "seed": experiment.work.seed},
    }


def describe_model(config: ModelConfig, model: DiffusionModel | None) -> dict[str, Any]:
    """What results depend on of the diffusion model; empty if there is none."""
    return {} if model is None else {"image_size": model.image_size, "weights": fingerprint(config)}


def describe_run(
    experiment: Experiment, model: DiffusionModel | None, vocabulary: Vocabulary, rank: Rank
) -> dict[str, Any]:
    """What may change when a run is resumed: names, and settings that change results only by rounding."""
    chosen = experiment.model
    about: dict[str, Any] = {
        "vocabulary": vocabulary.name,
        "device": rank.device.type,
        "work": {"batch": experiment.work.batch},
        "versions": versions(),
    }
    if model is not None:
        about["model"] = {
            "name": chosen.name,
            "revision": chosen.revision,
            "variant": chosen.variant,
            "vae": chosen.vae,
            "lora": chosen.lora,
            "dtype": str(model.dtype).removeprefix("torch."),
            "compile": chosen.compile,
        }
    return about


def _captions(experiment: Experiment, method: Method, source: Source, vocabulary: Vocabulary) -> Captions | None:
    path = experiment.captions.source
    if path == "none":
        return None
    if method.captions == "none":
        raise SettingError(f"`captions.source` {path}: method {method.name} reads no captions; give none")
    written = load_captions(path)
    captions = match_captions(written, source.entries, vocabulary, path)
    check_images(written, captions, source.entries, path)
    if method.captions == "class":  # an image's own caption is taken where there is one
        captions = {**_without_caption(path, source, vocabulary), **captions}
        check_complete(captions, source.entries, vocabulary, path)
    return captions


def _without_caption(path: str, source: Source, vocabulary: Vocabulary) -> Captions:
    """Empty captions for the images that `pseudolabel caption` has recorded as failures in this folder."""
    ledger = Ledger(Folder(path), "captions")
    failed = {key for entry in ledger.read(ledger.units()).values() for key in failed_keys(entry)}
    entries = [entry for entry in source.entries if entry.key in failed and entry.problem is None]
    return {(entry.key, vocabulary.names[index]): "" for entry in entries for index in entry.classes}
