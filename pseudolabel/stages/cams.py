"""The labelling stage: images with labels in, shards of class activation maps out."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from pseudolabel.batching import batched
from pseudolabel.config import Experiment
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.errors import SettingError
from pseudolabel.methods.diffsegmenter import DiffSegmenter
from pseudolabel.methods.score_maps import min_max
from pseudolabel.records import Sample, ScoreMaps
from pseudolabel.shards.folder import Folder
from pseudolabel.shards.ledger import Failure, digest
from pseudolabel.shards.sample import encode_cams
from pseudolabel.sources.entry import BadSample, Entry
from pseudolabel.sources.source import Source, open_source
from pseudolabel.stages.job import Job, Summary, open_job
from pseudolabel.stages.prefetch import prefetch
from pseudolabel.stages.units import Rank, Unit, cut_units
from pseudolabel.text.captions import check_complete, load_captions
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import PromptError, TokenWeights, build_prompt, token_weights
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

READ_AHEAD = 64
KIND = "cams"


def write_cams(
    experiment: Experiment,
    rank: Rank,
    retry_failed: bool = False,
) -> Summary | None:
    """Label this rank's share of the work units.

    Args:
        experiment: everything that is to be done.
        rank: who this process is.
        retry_failed: also take up the failed samples of finished units.

    Returns:
        The summary of the whole job where this call finished it, None where other ranks are still at work.
    """
    vocabulary = load_vocabulary(experiment.vocabulary)
    source = open_source(experiment.source, vocabulary)
    captions = _captions(experiment, source, vocabulary)
    model = load_model(experiment.model, rank.device)
    labeller = Labeller(experiment, model, vocabulary, captions)
    units = cut_units(source.entries, experiment.work.unit)
    inputs = Inputs(vocabulary, captions)
    settings = run_settings(experiment, model, units, inputs)
    with open_job(Folder(experiment.out) / KIND, KIND, settings, units, inputs.digest, rank, retry_failed) as job:
        pending = job.choose(rank.share(units))
        entries = (entry for unit in pending for entry in _unfinished(job, unit))
        read = prefetch(lambda entry: _read(source, entry), entries, experiment.work.loaders, READ_AHEAD)
        try:
            for unit in pending:
                _label_unit(job, labeller, unit, read)
        except torch.OutOfMemoryError as error:
            raise SettingError(
                f"out of memory on {rank.device} with --work.batch {experiment.work.batch}; give a smaller one, or "
                f"--model.dtype bfloat16. Finished shards are safe, but belong to their batch size. ({error})"
            ) from error
        return job.finish()


def _label_unit(job: Job[Entry], labeller: "Labeller", unit: Unit[Entry], read: Iterator[Sample | Failure]) -> None:
    began = time.monotonic()
    done = job.finished_samples(unit)
    results = [next(read) for _ in _unfinished(job, unit)]
    failures = [result for result in results if isinstance(result, Failure)]
    for sample, outcome in labeller([result for result in results if isinstance(result, Sample)]):
        if isinstance(outcome, ScoreMaps):
            done[sample.key] = encode_cams(sample, outcome, labeller.vocabulary)
        else:
            origin = next(entry.origin for entry in unit.entries if entry.key == sample.key)
            failures.append(Failure(sample.key, origin, outcome.status, str(outcome)))
        job.look(len(done) + len(failures))
    samples = [(entry.key, done[entry.key]) for entry in unit.entries if entry.key in done]
    failures.sort(key=lambda failure: failure.key)
    job.write(unit, samples, failures, began)


@dataclass(frozen=True)
class Pair:
    """A sample and the prompt of one of its classes."""

    sample: Sample
    tokens: TokenWeights


def _unfinished(job: Job[Entry], unit: Unit[Entry]) -> list[Entry]:
    """The unit's samples that are not in its shard: all of them where there is none."""
    kept = job.kept(unit)
    missing = {failure.key for failure in kept.failures} if kept is not None else set()
    return [entry for entry in unit.entries if kept is None or entry.key in missing]


class Labeller:
    """Score maps of samples, in batches that never mix two calls."""

    def __init__(
        self,
        experiment: Experiment,
        model: DiffusionModel,
        vocabulary: Vocabulary,
        captions: dict[tuple[str, str], str] | None,
    ) -> None:
        self.model, self.vocabulary, self.captions = model, vocabulary, captions
        self.config, self.seed = experiment.method, experiment.work.seed
        self.method = DiffSegmenter(model, experiment.method)
        # The timesteps of a pair go through the U-Net together, so their mean needs no memory of earlier batches.
        self.pairs = max(1, experiment.work.batch // len(experiment.method.timesteps))

    def __call__(self, samples: list[Sample]) -> Iterator[tuple[Sample, ScoreMaps | BadSample]]:
        """Every sample with its score maps, or with what is wrong with it, in their order."""
        faults: dict[str, BadSample] = {}
        pairs: list[Pair] = []
        for sample in samples:
            try:
                pairs += self._pairs(sample)
            except PromptError as error:
                faults[sample.key] = BadSample("prompt", str(error))
        maps = self._maps(pairs)
        for sample in samples:
            yield sample, faults[sample.key] if sample.key in faults else self._collect(sample, maps)

    def _collect(self, sample: Sample, maps: Iterator[torch.Tensor]) -> ScoreMaps:
        # Self-attention leaves narrow maps; stretched to [0, 1], they lose least to float16.
        rows = [min_max(next(maps)).half().numpy() for _ in sample.classes]
        stack = np.stack(rows) if rows else np.zeros((0, *self.model.latent_shape[1:]), np.float16)
        return ScoreMaps(sample.key, sample.classes, stack, (sample.image.height, sample.image.width))

    def _pairs(self, sample: Sample) -> list[Pair]:
        return [Pair(sample, self._tokens(sample.key, index)) for index in sample.classes]

    def _tokens(self, key: str, index: int) -> TokenWeights:
        caption = self.captions.get((key, self.vocabulary.names[index]), "") if self.captions else ""
        prompt = build_prompt(self.vocabulary.template, self.vocabulary.prompt(index), caption)
        return token_weights(self.model.tokenizer, prompt, self.config)

    def _maps(self, pairs: list[Pair]) -> Iterator[torch.Tensor]:
        """float32 (h, w) maps on the CPU, pair by pair; batches have one size, the last one filled up by repetition."""
        encodings = TextEncodings(self.model, [pair.tokens.text for pair in pairs])
        for batch in batched(zip(pairs, self._latents(pairs), strict=True), self.pairs):
            missing = self.pairs - len(batch) if len(pairs) > self.pairs else 0
            filled = [*batch, *[batch[-1]] * missing]
            maps = self.method(
                torch.stack([latent for _, latent in filled]),
                torch.stack([self._noise(pair.sample.key) for pair, _ in filled]),
                torch.stack([encodings.emphasised(pair.tokens.text, pair.tokens.emphasis) for pair, _ in filled]),
                torch.stack([pair.tokens.columns for pair, _ in filled]),
            )
            yield from maps[: len(batch)].cpu()

    def _latents(self, pairs: list[Pair]) -> Iterator[torch.Tensor]:
        """The latent of each pair's image; an image is encoded once however many classes it has."""
        samples = {pair.sample.key: pair.sample for pair in pairs}
        count = Counter(pair.sample.key for pair in pairs)
        for batch in batched(samples.values(), self.pairs):
            pixels = torch.stack([self.model.pixels(sample.image) for sample in batch])
            drawn = None
            if self.config.vae == "sample":
                drawn = torch.stack([self._draw(sample.key, "posterior", 1)[0] for sample in batch])
            for sample, latent in zip(batch, self.model.encode(pixels, drawn), strict=True):
                yield from [latent] * count[sample.key]

    def _noise(self, key: str) -> torch.Tensor:
        """Standard normal (T or 1, c, h, w) of one image."""
        return self._draw(key, "noise", len(self.config.timesteps) if self.config.noise == "per_timestep" else 1)

    def _draw(self, key: str, purpose: str, count: int) -> torch.Tensor:
        """Standard normal values that depend on the seed, the image's key and the purpose alone."""
        seed = hashlib.sha256(f"{self.seed}:{purpose}:{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1)
        return torch.randn(count, *self.model.latent_shape, generator=generator)


@dataclass(frozen=True)
class Inputs:
    """What the labels say about the images; `captions` are None where prompts go without."""

    vocabulary: Vocabulary
    captions: dict[tuple[str, str], str] | None

    def digest(self, unit: Unit[Entry], without: frozenset[str] = frozenset()) -> str:
        """Digest of keys, classes and captions, leaving out the samples that failed, whose labels may be mended."""
        return digest([self._describe(entry) for entry in unit.entries if entry.key not in without])

    def _describe(self, entry: Entry) -> list[Any]:
        captions = self.captions or {}
        texts = [captions.get((entry.key, self.vocabulary.names[index]), "") for index in entry.classes]
        return [entry.key, *entry.classes, *texts]


def run_settings(
    experiment: Experiment,
    model: DiffusionModel,
    units: Sequence[Unit[Entry]],
    inputs: Inputs,
) -> dict[str, Any]:
    """Everything that the shards' bytes depend on; not where the data lie, nor how many processes there are."""
    return {
        "inputs": {
            "count": sum(len(unit.entries) for unit in units),
            "sha256": digest([inputs.digest(unit) for unit in units]),
        },
        "unlabelled": experiment.source.unlabelled,
        "max_pixels": experiment.source.max_pixels,
        "vocabulary": {"name": inputs.vocabulary.name, "sha256": digest(asdict(inputs.vocabulary))},
        "model": {
            **asdict(replace(experiment.model, dtype="auto")),
            "dtype": str(model.dtype).removeprefix("torch."),
            "image_size": model.image_size,
            "weights": fingerprint(model),
        },
        "method": asdict(experiment.method),
        "captions": "none" if inputs.captions is None else "given",
        "work": {"unit": experiment.work.unit, "batch": experiment.work.batch, "seed": experiment.work.seed},
    }


def _captions(experiment: Experiment, source: Source, vocabulary: Vocabulary) -> dict[tuple[str, str], str] | None:
    if experiment.captions.source == "none":
        return None
    captions = load_captions(experiment.captions.source)
    check_complete(captions, source.entries, vocabulary, experiment.captions.source)
    return captions


def _read(source: Source, entry: Entry) -> Sample | Failure:
    try:
        return source.read(entry)
    except BadSample as error:
        return Failure(entry.key, entry.origin, error.status, str(error))
