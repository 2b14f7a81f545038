"""Refine the samples of a CAM shard into those of a mask shard, on processor cores or on the model's device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.class_regions import take_regions
from pseudolabel.crf.densecrf import label_images, refine
from pseudolabel.crf.engines import CPU, fits_device
from pseudolabel.crf.failures import STATUS, crf_failure, crf_failures
from pseudolabel.crf.image import fed
from pseudolabel.crf.scores import Decision
from pseudolabel.crf.torch_engine import TorchMeanField
from pseudolabel.errors import LatticeOverflowError, SampleError
from pseudolabel.io.images import decode_image
from pseudolabel.io.tar import Members
from pseudolabel.records import LabelMap
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.runtime.workers import open_pool
from pseudolabel.score_maps import at_image_size, check_maps, enlarge
from pseudolabel.shards.confidence import judge
from pseudolabel.shards.sample import CamSample, decode_cams, encode_mask
from pseudolabel.sources.region_files import RegionFile, Regions

CamMembers = tuple[str, Members]
Refined = tuple[str, Members | SampleError]
FoundRegions = RegionFile | SampleError | None
Encoded = tuple[str, Future[Members | SampleError]]
Refiner = Callable[[Sequence[CamMembers]], Iterator[Refined]]
"""From the (key, members) pairs of a CAM shard to those of the mask shard, or their failures, in any order."""

# Memory grows with the pixels of a batch, about 1 KB each.
PIXELS_TOGETHER = 2**20
AHEAD_PER_THREAD = 8


@contextmanager
def open_refiner(
    crf: CrfConfig, device: torch.device, workers: int, regions: Regions | None = None
) -> Iterator[Refiner]:
    """A refiner by the engine `crf.engine`; its worker processes and threads end with the context.

    With `regions`, masks are adjusted by them, and a sample without any is a failure.
    """
    with open_pool(workers) as processes:
        if crf.engine != "torch":
            yield PoolRefiner(crf, processes, regions)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="masks") as threads:
            yield DeviceRefiner(crf, device, threads, workers, processes, regions)


class PoolRefiner:
    """One sample per worker process."""

    def __init__(self, crf: CrfConfig, pool: Executor, regions: Regions | None = None) -> None:
        self.work, self.pool, self.regions = partial(refine_sample, crf=crf), pool, regions

    def __call__(self, samples: Sequence[CamMembers]) -> Iterator[Refined]:
        keys = [key for key, _ in samples]
        found = [find_regions(self.regions, key) for key in keys]
        return zip(keys, self.pool.map(self.work, samples, found), strict=True)


def find_regions(regions: Regions | None, key: str) -> FoundRegions:
    """The file with an image's masks, or the failure for lack of it; None where there are to be none."""
    try:
        return regions.find(key) if regions is not None else None
    except SampleError as error:
        return error


def refine_sample(sample: CamMembers, regions: FoundRegions, crf: CrfConfig) -> Members | SampleError:
    """Members of the sample in the mask shard, or its failure."""
    if isinstance(regions, SampleError):
        return regions
    decoded = decode(sample)
    if isinstance(decoded, SampleError):
        return decoded
    maps, image = decoded.cams.scores, decoded.image
    try:
        with crf_failures(CPU):
            decision = refine(image, at_image_size(maps.maps, maps.size, maps.final), maps.classes, crf)
    except SampleError as error:
        return error
    return decoded.encode(decision, regions)


@dataclass(frozen=True)
class Decoded:
    """A sample of a CAM shard with its image, uint8 (H, W, 3)."""

    key: str
    cams: CamSample
    image: np.ndarray

    @property
    def pixels(self) -> int:
        return self.image.shape[0] * self.image.shape[1]

    def encode(self, decision: Decision[np.ndarray], regions: RegionFile | None) -> Members | SampleError:
        fields, classes = self.cams.fields, self.cams.scores.classes
        if regions is not None:
            try:
                decision = take_regions(decision, regions.read(self.cams.scores.size), classes)
            except SampleError as error:
                return error
            fields = {**fields, "regions": regions.origin}
        mask = LabelMap(self.key, *decision)
        return encode_mask(self.cams.jpeg, mask, fields | judge(mask, classes))


def decode(sample: CamMembers) -> Decoded | SampleError:
    """Decode a sample of a CAM shard, or give its failure."""
    key, members = sample
    try:
        cams = decode_cams(key, members)
        image, _ = decode_image(cams.jpeg, key, max_pixels=np.iinfo(np.int64).max)
        check_maps(torch.from_numpy(cams.scores.maps).float())
    except SampleError as error:
        return error
    except ValueError as error:
        return SampleError(STATUS, str(error))
    if cams.scores.size != (image.height, image.width):
        return SampleError(STATUS, f"maps for an image of {cams.scores.size}, but it has {(image.height, image.width)}")
    return Decoded(key, cams, np.asarray(image))


class DeviceRefiner:
    """Refines batches of samples on a device; threads decode ahead and encode results.

    Maps are copied to the device at the stored resolution, and only labels are copied back. On CUDA devices the work
    has its own stream, beside the diffusion model's. Images that are too large for the device go to worker processes.
    """

    def __init__(
        self,
        crf: CrfConfig,
        device: torch.device,
        pool: Executor,
        threads: int,
        processes: Executor,
        regions: Regions | None = None,
    ) -> None:
        self.crf, self.device, self.pool, self.threads, self.processes = crf, device, pool, threads, processes
        self.engine, self.regions = TorchMeanField(crf, device), regions
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, samples: Sequence[CamMembers]) -> Iterator[Refined]:
        failures: list[Refined] = []
        encoded: deque[Encoded] = deque()
        for batch in batches(self._decode(samples, encoded, failures), PIXELS_TOGETHER):
            for sample, decision in zip(batch, self._decide(batch), strict=True):
                if isinstance(decision, SampleError):
                    failures.append((sample.key, decision))
                else:
                    regions = self.regions.find(sample.key) if self.regions is not None else None
                    encoded.append((sample.key, self.pool.submit(sample.encode, decision, regions)))
            while encoded and encoded[0][1].done():
                key, members = encoded.popleft()
                yield key, members.result()
        for key, members in encoded:
            yield key, members.result()
        yield from failures

    def _decode(
        self,
        samples: Sequence[CamMembers],
        encoded: deque[Encoded],
        failures: list[Refined],
    ) -> Iterator[Decoded]:
        """Samples for the device; larger ones are submitted to worker processes, failures go to `failures`."""
        read = prefetch(decode, samples, self.threads, self.threads * AHEAD_PER_THREAD)
        for sample, decoded in zip(samples, read, strict=True):
            regions = find_regions(self.regions, sample[0])
            if isinstance(decoded, SampleError):
                failures.append((sample[0], decoded))
            elif isinstance(regions, SampleError):
                failures.append((sample[0], regions))
            elif fits_device(decoded.image):
                yield decoded
            else:
                on_cores = replace(self.crf, engine="scipy")
                encoded.append((decoded.key, self.processes.submit(refine_sample, sample, regions, on_cores)))

    def _decide(self, batch: Sequence[Decoded]) -> Sequence[Decision[np.ndarray] | SampleError]:
        """The decision for each sample, or its failure; a batch that is too large is split into halves."""
        try:
            with self._at_work():
                return self._decide_at_once(batch)
        except (LatticeOverflowError, torch.OutOfMemoryError) as error:
            if len(batch) == 1:
                return [crf_failure(error, self.device)]
        half = len(batch) // 2
        return [*self._decide(batch[:half]), *self._decide(batch[half:])]

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Make the stream and its device current, or this thread would also initialise the first device."""
        if self.stream is None:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            yield

    @torch.inference_mode()
    def _decide_at_once(self, batch: Sequence[Decoded]) -> list[Decision[np.ndarray]]:
        cams = [sample.cams.scores for sample in batch]
        images = [self._upload(fed(sample.image, self.crf)) for sample in batch]
        scores = [enlarge(self._upload(torch.from_numpy(own.maps)), own.size, own.final) for own in cams]
        decisions = label_images(images, scores, [own.classes for own in cams], self.crf, self.engine)
        return fetch(decisions)

    def _upload(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device) if self.stream is None else tensor.pin_memory().to(self.device, non_blocking=True)


def fetch(decisions: Sequence[Decision[torch.Tensor]]) -> list[Decision[np.ndarray]]:
    """Decisions on the CPU, by one copy, since every copy makes the device's queue run empty."""
    tensors = [tensor for decision in decisions for tensor in decision]
    data = torch.cat([tensor.contiguous().view(torch.uint8).flatten() for tensor in tensors]).cpu()
    parts = data.split([tensor.nbytes for tensor in tensors])
    arrays = [
        part.numpy().view(str(tensor.dtype).removeprefix("torch.")).reshape(tensor.shape)
        for part, tensor in zip(parts, tensors, strict=True)
    ]
    return [Decision(*arrays[start : start + 3]) for start in range(0, len(arrays), 3)]


def batches(samples: Iterable[Decoded], pixels: int) -> Iterator[list[Decoded]]:
    """Batches of samples with the same number of classes, of at most `pixels` pixels, or of one larger image."""
    waiting: dict[int, list[Decoded]] = {}
    for sample in samples:
        group = waiting.setdefault(len(sample.cams.scores.classes), [])
        if group and sum(other.pixels for other in group) + sample.pixels > pixels:
            yield group.copy()
            group.clear()
        group.append(sample)
    yield from (group for group in waiting.values() if group)
