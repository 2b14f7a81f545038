"""MMSegmentation's IoUMetric with DenseCRF before it and palette PNGs after it."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from pseudolabel.config import CrfConfig
from pseudolabel.crf.densecrf import refine_probabilities
from pseudolabel.crf.engines import resolve_engine
from pseudolabel.errors import SettingError
from pseudolabel.io.images import mask_image
from pseudolabel.runtime.cores import share_of_cores
from pseudolabel.runtime.workers import open_pool
from pseudolabel_train.prediction_files import PredictionFiles, prediction_name

PENDING_PER_WORKER = 2
# What the CRF of one image may end in; the image is too large, or what the model says of it is no number.
OF_ONE_IMAGE = (ValueError, MemoryError, torch.OutOfMemoryError)
# Of CrfConfig, what bears on probabilities that have a background of their own.
CRF_FIELDS = (
    "iterations",
    "gaussian_sxy",
    "gaussian_weight",
    "bilateral_sxy",
    "bilateral_srgb",
    "bilateral_weight",
    "image",
    "engine",
)


@dataclass(frozen=True)
class Prediction:
    """One image's labels on their way to the score.

    Attributes:
        path: of the image, which names the file that is written.
        labels: a promise of the labels, (H, W), or of the reason why there are none.
        truth: int (H, W); None where there is no ground truth.
        first: the mask value of label 0: 1 where the classes have no background and a mask's 0 says that there is none.
    """

    path: str
    labels: "Future[np.ndarray]"
    truth: torch.Tensor | None
    first: int = 0

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """The labels as mask files number them: uint8 (H, W)."""
        return (labels + self.first).astype(np.uint8)


@METRICS.register_module()
class CrfIoUMetric(IoUMetric):
    """`IoUMetric` that can run DenseCRF on the probabilities first: on the device, or in worker processes behind it.

    At most a few images wait for a worker at any time, so that memory does not grow with the data set and nothing but
    masks is written to disk. With `output_dir` the predictions are written as palette PNGs in VOC's colours, where
    `IoUMetric` writes grey ones that the VOC server does not take. An image that the CRF cannot take is not scored and
    not written; the others are.

    Attributes:
        failures: of the latest evaluation, on all ranks: why an image was not scored, by its name.

    Args:
        crf: those of `CRF_FIELDS` that differ from the defaults of `pseudolabel.config.CrfConfig`; None leaves the CRF
            out.
        workers: processes per rank for the CRF; 0 shares all cores between the ranks.
        output_dir: folder for the predictions, `a/img.png` for the image `a/img.jpg` below its `image_folders`.
        image_folders: where the images lie; `pseudolabel train` and `test` set it.
        options: those of `IoUMetric`, such as `format_only`.

    Raises:
        SettingError: if `crf` has an unknown field or no iterations.
    """

    def __init__(
        self,
        crf: dict[str, Any] | None = None,
        workers: int = 0,
        output_dir: str | None = None,
        image_folders: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)  # without the folder, which it would create
        self.output_dir, self.image_folders = output_dir, tuple(image_folders)
        self._files = PredictionFiles(output_dir, image_folders) if output_dir else None
        self.crf = _read_crf(crf)
        self._workers = workers or share_of_cores(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[Prediction] = deque()
        self._failed: dict[str, str] = {}  # on this rank, since the latest evaluation
        self.failures: dict[str, str] = {}

    def crf_fields(self) -> dict[str, Any]:
        """The CRF's parameters, for reports; empty without a CRF."""
        return {} if self.crf is None else {name: getattr(self.crf, name) for name in CRF_FIELDS}

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Take a batch: score it, or with a CRF hand it on and score what the workers have finished.

        Args:
            data_batch: with `inputs`, the images as the pipeline left them: uint8 (3, H, W), BGR.
            data_samples: the model's outputs with `pred_sem_seg`, `seg_logits` and, for scores, `gt_sem_seg`.
        """
        for image, sample in zip(data_batch["inputs"], data_samples, strict=True):
            truth = None if self.format_only else sample["gt_sem_seg"]["data"].squeeze(0).cpu()
            labels = promise(partial(_predicted, sample)) if self.crf is None else self._refine(image, sample, self.crf)
            first = 1 if sample.get("reduce_zero_label") else 0
            self._pending.append(Prediction(sample["img_path"], labels, truth, first))
        self._finish(
            len(self._pending) if self.crf is None else len(self._pending) - PENDING_PER_WORKER * self._workers
        )

    def evaluate(self, size: int) -> dict[str, float]:
        """Score of the `size` images of all ranks, once the workers are done; see `IoUMetric`.

        Where the CRF has failed on every image there are no scores.
        """
        self._finish(len(self._pending))
        self.failures = {key: said for part in all_gather_object(self._failed) for key, said in part.items()}
        self._failed = {}
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self.format_only:
            barrier()
            done = size - len(self.failures)
            print_log(f"the predictions of {done} images are in '{self.output_dir}'", logger="current")
            return {}
        if len(self.failures) >= size:
            self.results.clear()
            return {}
        return super().evaluate(size)

    def _refine(self, image: torch.Tensor, sample: dict[str, Any], crf: CrfConfig) -> "Future[np.ndarray]":
        """Labels from the engine `torch`, at once on the logits' device, or a worker's promise of pydensecrf's."""
        logits = sample["seg_logits"]["data"]
        if image.shape[-2:] != logits.shape[-2:]:
            raise SettingError(
                f"DenseCRF needs '{sample['img_path']}' at its own size {tuple(logits.shape[-2:])}, but the test "
                f"pipeline made it {tuple(image.shape[-2:])}; take Resize out of it, or set test_evaluator.crf=None"
            )
        if image.dtype != torch.uint8:
            raise SettingError(f"DenseCRF cannot refine '{sample['img_path']}': its image is {image.dtype}, not uint8")
        if not torch.isfinite(logits).all():
            return promise(_diverged)
        pixels = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
        probabilities = logits.float().softmax(0).cpu().numpy()
        crf = self.crf = resolve_engine(crf, logits.device)  # for the report
        if crf.engine == "torch":
            return promise(lambda: refine_probabilities(pixels, probabilities, crf, logits.device))
        if self._pool is None:
            self._pool = open_pool(self._workers, refine_probabilities.__module__)
        return self._pool.submit(refine_probabilities, pixels, probabilities, crf)

    def _finish(self, count: int) -> None:
        """Score the `count` oldest predictions, waiting for them where necessary."""
        for _ in range(count):
            prediction = self._pending.popleft()
            classes = len(self.dataset_meta["classes"])
            try:
                labels = prediction.labels.result()
            except SettingError:
                raise
            except OF_ONE_IMAGE as error:
                self._failed[prediction_name(prediction.path, self.image_folders)] = (
                    f"DenseCRF: {error or type(error).__name__}"
                )
                self.results.append((torch.zeros(classes),) * 4)  # nothing to count, but each rank has as many
                continue
            if prediction.truth is not None:
                areas = self.intersect_and_union(torch.from_numpy(labels), prediction.truth, classes, self.ignore_index)
                self.results.append(areas)
            if self._files is not None:
                self._files.write(prediction.path, mask_image(prediction.mask(labels)))


def promise(work: Callable[[], np.ndarray]) -> "Future[np.ndarray]":
    """What `work` gives, or the error of this one image that it raises, kept until it is asked for."""
    future: Future[np.ndarray] = Future()
    try:
        future.set_result(work())
    except OF_ONE_IMAGE as error:
        future.set_exception(error)
    return future


def _predicted(sample: dict[str, Any]) -> np.ndarray:
    return sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy()


def _diverged() -> np.ndarray:
    raise ValueError("the logits are not finite, the training diverged")


def _read_crf(fields: dict[str, Any] | None) -> CrfConfig | None:
    if fields is None:
        return None
    if unknown := sorted(set(fields) - set(CRF_FIELDS)):
        raise SettingError(f"test_evaluator.crf has no field {', '.join(unknown)}; it has {', '.join(CRF_FIELDS)}")
    config = CrfConfig(**fields)
    if config.iterations < 1:
        raise SettingError(f"test_evaluator.crf.iterations {config.iterations}: set crf=None to go without a CRF")
    return config
