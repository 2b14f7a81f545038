"""Measure a checkpoint's attention on images with masks: which layers localise classes, which follow objects."""

import io
from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np

from pseudolabel.config import Experiment
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import NothingScoredError, SampleError, SettingError, SourceError
from pseudolabel.evaluation.attention_scores import CrossScores, SelfScores
from pseudolabel.evaluation.probe_report import CrossRow, ProbeReport, SelfRow
from pseudolabel.io.folder import Folder
from pseudolabel.io.metrics import check_metrics, record_metrics
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.methods.attention_reader import AttentionReader
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.runtime.progress import ProgressLine, show_progress
from pseudolabel.runtime.rank import Rank
from pseudolabel.sources.entry import Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.vocabulary import choose_vocabulary
from pseudolabel.views.probe_figure import plot_probe

FIGURE = "probe.png"


def probe(experiment: Experiment, rank: Rank, images: int = 40) -> ProbeReport:
    """Measure every attention layer and head at each of `diffsegmenter.timesteps`.

    Writes the report under `probe` into `metrics.json` of the experiment's folder, and a figure beside it.

    Args:
        experiment: whose source has labels and ground truth.
        rank: who this process is; probing is one process's work.
        images: number of images, the first ones of the source with a class.

    Raises:
        SourceError: if there is no ground truth.
        NothingScoredError: if no image could be measured.
        SettingError: if `images` or a setting of DiffSegmenter does not fit.
        NotOursError: if `metrics.json` or the figure is there that this package did not write.
    """
    if images < 1:
        raise SettingError(f"`images` {images}: give at least 1")
    vocabulary = choose_vocabulary(experiment)
    source = open_source(experiment.source, vocabulary)
    if not source.has_ground_truth:
        raise SourceError(
            f"'{experiment.source.path}' has no ground-truth masks; name their folder with `source.masks`"
        )
    check_metrics(experiment.out, [FIGURE])
    model = load_model(experiment.model, rank.device)
    context = Context(rank.device, vocabulary, model, None, experiment.work.batch, experiment.work.seed)
    entries = [entry for entry in source.entries if entry.classes][:images]
    timesteps = experiment.diffsegmenter.timesteps
    probes = []
    with show_progress("probe", len(entries) * len(timesteps)) as progress:
        for timestep in timesteps:
            reader = AttentionReader(context, experiment.diffsegmenter, timestep)
            probes.append(Probe(reader, source, len(vocabulary)))
            probes[-1].measure(entries, experiment.work.loaders, progress, len(entries) * (len(probes) - 1))
    failures = {key: message for one in probes for key, message in one.failures.items()}
    if len(failures) == len(entries):
        reason = next(iter(failures.values()), "no image has a class of the vocabulary")
        raise NothingScoredError(f"no image of '{experiment.source.path}' was measured: {reason}")
    report = ProbeReport(
        model=experiment.model.name,
        split=experiment.source.split,
        images=len(entries) - len(failures),
        cross=[row for one in probes for row in one.cross_rows()],
        self_attention=[row for one in probes for row in one.self_rows()],
        failures=failures,
    )
    record_metrics(experiment.out, "probe", report.to_dict())
    figure = io.BytesIO()
    plot_probe(report, figure)
    OwnFiles(Folder(experiment.out)).write({FIGURE: figure.getvalue()})
    return report


class Probe:
    """The scores of all layers at one timestep.

    Attributes:
        failures: messages of the images that could not be measured, by key.
    """

    def __init__(self, reader: AttentionReader, source: Source, classes: int) -> None:
        self.reader, self.source = reader, source
        self.failures: dict[str, str] = {}
        self._cross = {layer: CrossScores(classes) for layer in reader.layers if layer.kind == "cross"}
        self._self = {layer: SelfScores(classes) for layer in reader.layers if layer.kind == "self"}

    def measure(self, entries: Sequence[Entry], loaders: int, progress: ProgressLine, done: int) -> None:
        """Measure images; `done` is where the progress starts."""
        loaded = prefetch(self._load, entries, loaders, loaders)
        for number, (entry, found) in enumerate(zip(entries, loaded, strict=True), 1):
            try:
                if isinstance(found, SampleError):
                    raise found
                self._add(*found)
            except SampleError as error:
                self.failures[entry.key] = str(error)
            progress.update(done + number, len(self.failures))

    def _load(self, entry: Entry) -> tuple[Sample, np.ndarray] | SampleError:
        try:
            sample = self.source.read(entry, self.reader.predictor.view)
            truth = self.source.ground_truth(entry, sample.size)
            if truth is None:
                raise SampleError("no ground truth", self.source.lacks_ground_truth(entry))
        except SampleError as error:
            return error
        return sample, truth.labels

    def _add(self, sample: Sample, truth: np.ndarray) -> None:
        reading = self.reader(sample)
        for layer, maps in reading.cross.items():
            self._cross[layer].add(maps, truth, sample.classes)
        for layer, (query, key) in reading.queries_keys.items():
            self._self[layer].add(query, key, reading.fused, truth, sample.classes)

    def cross_rows(self) -> Iterator[CrossRow]:
        """The rows of cross-attention layers."""
        for number, (layer, scores) in enumerate(self._cross.items()):
            yield CrossRow(number, layer.name, layer.stride, self.reader.timestep, *scores.mious())

    def self_rows(self) -> Iterator[SelfRow]:
        """The rows of self-attention layers."""
        for number, (layer, scores) in enumerate(self._self.items()):
            shares, lifts = scores.cohesion
            yield SelfRow(
                number=number,
                layer=layer.name,
                stride=layer.stride,
                timestep=self.reader.timestep,
                share=mean(shares),
                lift=mean(lifts),
                head_share=shares,
                head_lift=lifts,
                head_miou=scores.head_mious(),
                start=scores.start(),
                passes=scores.passes(),
            )
