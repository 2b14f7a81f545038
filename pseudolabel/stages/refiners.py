"""The two ways from a CAM shard's samples to a mask shard's: on processor cores, or on the model's device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf.densecrf import refine
from pseudolabel.crf.engines import CPU, fits_device
from pseudolabel.crf.failures import crf_failure, crf_failures
from pseudolabel.crf.image import fed_image
from pseudolabel.crf.scores import choose_labels, with_background
from pseudolabel.crf.torch_engine import TorchCrf
from pseudolabel.errors import LatticeOverflowError, SampleError
from pseudolabel.io.images import decode_image
from pseudolabel.io.tar import Members
from pseudolabel.records import BACKGROUND, LabelMap
from pseudolabel.runtime.prefetch import prefetch
from pseudolabel.runtime.workers import open_pool
from pseudolabel.score_maps import at_image_size, check_maps, enlarge
from pseudolabel.shards.sample import CamSample, decode_cams, encode_mask

CamMembers = tuple[str, Members]
Refined = tuple[str, Members | str]
Refiner = Callable[[Sequence[CamMembers]], Iterator[Refined]]
"""From the (key, members) pairs of a CAM shard to the mask shard's, or what is wrong with them, as they get ready."""

# Memory follows the pixels of a batch, some 1 KB each.
PIXELS_TOGETHER = 2**20
AHEAD_PER_THREAD = 8


@contextmanager
def open_refiner(crf: CrfConfig, device: torch.device, workers: int) -> Iterator[Refiner]:
    """A refiner of the engine that `crf` names, and its worker processes or threads while the context lasts."""
    with open_pool(workers, __name__) as processes:
        if crf.engine == "pydensecrf":
            yield PoolRefiner(crf, processes)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="masks") as threads:
            yield DeviceRefiner(crf, device, threads, workers, processes)


class PoolRefiner:
    """One sample per worker process."""

    def __init__(self, crf: CrfConfig, pool: Executor) -> None:
        self.work, self.pool = partial(refine_sample, crf=crf), pool

    def __call__(self, samples: Sequence[CamMembers]) -> Iterator[Refined]:
        keys = [key for key, _ in samples]
        return zip(keys, self.pool.map(self.work, samples), strict=True)


def refine_sample(sample: CamMembers, crf: CrfConfig) -> Members | str:
    """Members of the mask shard's sample, or what is wrong with the CAM shard's."""
    decoded = decode(sample)
    if isinstance(decoded, str):
        return decoded
    cams, image = decoded.cams, decoded.image
    try:
        with crf_failures(CPU):
            labels, _ = refine(image, at_image_size(cams.scores.maps, cams.scores.size), cams.scores.classes, crf)
    except SampleError as error:
        return str(error)
    return decoded.encode(labels)


@dataclass(frozen=True)
class Decoded:
    """A sample of a CAM shard with its image, uint8 (H, W, 3)."""

    key: str
    cams: CamSample
    image: np.ndarray

    @property
    def pixels(self) -> int:
        return self.image.shape[0] * self.image.shape[1]

    def encode(self, labels: np.ndarray) -> Members:
        return encode_mask(self.cams.jpeg, LabelMap(self.key, labels), self.cams.fields)


def decode(sample: CamMembers) -> Decoded | str:
    """The sample, or what is wrong with it."""
    key, members = sample
    try:
        cams = decode_cams(key, members)
        image, _ = decode_image(cams.jpeg, key, max_pixels=np.iinfo(np.int64).max)
        check_maps(torch.from_numpy(cams.scores.maps).float())
        if cams.scores.size != (image.height, image.width):
            raise ValueError(f"maps for an image of {cams.scores.size}, but it has {(image.height, image.width)}")
    except (SampleError, ValueError) as error:
        return str(error)
    return Decoded(key, cams, np.asarray(image))


class DeviceRefiner:
    """Many samples at once on a device, with decoding ahead of it and encoding behind it in threads.

    Maps go up small, as they are stored, and labels come down; everything between stays on the device. CUDA devices do
    it on a stream of its own, beside the diffusion model's. Images that are too large go to worker processes.
    """

    def __init__(self, crf: CrfConfig, device: torch.device, pool: Executor, threads: int, processes: Executor) -> None:
        self.crf, self.device, self.pool, self.threads, self.processes = crf, device, pool, threads, processes
        self.engine = TorchCrf(crf, device)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, samples: Sequence[CamMembers]) -> Iterator[Refined]:
        faults: list[Refined] = []
        encoded: deque[tuple[str, Future[Members | str]]] = deque()
        for batch in batches(self._decode(samples, encoded, faults), PIXELS_TOGETHER):
            for sample, labels in zip(batch, self._label(batch), strict=True):
                if isinstance(labels, str):
                    faults.append((sample.key, labels))
                else:
                    encoded.append((sample.key, self.pool.submit(sample.encode, labels)))
            while encoded and encoded[0][1].done():
                key, members = encoded.popleft()
                yield key, members.result()
        for key, members in encoded:
            yield key, members.result()
        yield from faults

    def _decode(
        self, samples: Sequence[CamMembers], encoded: deque[tuple[str, Future[Members | str]]], faults: list[Refined]
    ) -> Iterator[Decoded]:
        """The samples for the device; promises of what becomes of the others, and what is wrong with some of them."""
        read = prefetch(decode, samples, self.threads, self.threads * AHEAD_PER_THREAD)
        for sample, decoded in zip(samples, read, strict=True):
            if isinstance(decoded, str):
                faults.append((sample[0], decoded))
            elif fits_device(decoded.image):
                yield decoded
            else:
                on_cores = replace(self.crf, engine="pydensecrf")
                encoded.append((decoded.key, self.processes.submit(refine_sample, sample, on_cores)))

    def _label(self, batch: Sequence[Decoded]) -> Sequence[np.ndarray | str]:
        """uint8 (H, W) labels of each sample, or what is wrong with it; what is too much at once is done in halves."""
        if not batch[0].cams.scores.classes:
            return [np.full(sample.image.shape[:2], BACKGROUND, np.uint8) for sample in batch]
        try:
            with self._at_work():
                return self._label_at_once(batch)
        except (LatticeOverflowError, torch.OutOfMemoryError) as error:
            if len(batch) == 1:
                return [str(crf_failure(error, self.device))]
        half = len(batch) // 2
        return [*self._label(batch[:half]), *self._label(batch[half:])]

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """On the stream; and on its device, or this thread would wake up the first device as well."""
        if self.stream is None:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            yield

    @torch.inference_mode()
    def _label_at_once(self, batch: Sequence[Decoded]) -> list[np.ndarray]:
        images = [self._upload(fed_image(sample.image, self.crf)) for sample in batch]
        cams = [sample.cams.scores for sample in batch]
        scores = [with_background(enlarge(self._upload(own.maps), own.size), self.crf) for own in cams]
        marginals = self.engine(images, scores) if self.crf.iterations else [None] * len(batch)
        labels = [
            choose_labels(own, probabilities, sample.classes, self.crf)[0]
            for own, probabilities, sample in zip(scores, marginals, cams, strict=True)
        ]
        flat = torch.cat([own.flatten() for own in labels]).cpu().numpy()
        parts = np.split(flat, np.cumsum([sample.pixels for sample in batch])[:-1])
        return [part.reshape(own.size) for part, own in zip(parts, cams, strict=True)]

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array))  # a copy, for Pillow's memory is read-only
        return tensor.to(self.device) if self.stream is None else tensor.pin_memory().to(self.device, non_blocking=True)


def batches(samples: Iterable[Decoded], pixels: int) -> Iterator[list[Decoded]]:
    """Samples with equally many classes together, as many as have `pixels` pixels, or one that has more."""
    waiting: dict[int, list[Decoded]] = {}
    for sample in samples:
        group = waiting.setdefault(len(sample.cams.scores.classes), [])
        if group and sum(other.pixels for other in group) + sample.pixels > pixels:
            yield group.copy()
            group.clear()
        group.append(sample)
    yield from (group for group in waiting.values() if group)
