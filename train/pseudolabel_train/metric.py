"""MMSegmentation's IoUMetric, with optional DenseCRF and with predictions written as palette PNGs."""

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
from pseudolabel.crf.engines import CPU, resolve_engine
from pseudolabel.errors import SettingError
from pseudolabel.io.images import mask_image
from pseudolabel.runtime.cores import cores_per_process
from pseudolabel.runtime.workers import open_pool
from pseudolabel_train.prediction_files import PredictionFiles, prediction_name

PENDING_PER_WORKER = 2
# Errors of the CRF that concern one image only: it is too large, or its logits are not finite.
OF_ONE_IMAGE = (ValueError, MemoryError, torch.OutOfMemoryError)
# Settings of CrfConfig that apply to probabilities with their own background channel.
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
    """One image's predicted labels, not scored yet.

    Attributes:
        path: path of the image, from which the name of the written file follows.
        labels: future of the labels, int (H, W), or of the exception.
        truth: int (H, W); None without ground truth.
        first: the mask value of label 0; 1 if the classes have no background, so that 0 in a mask means no label.
    """

    path: str
    labels: "Future[np.ndarray]"
    truth: torch.Tensor | None
    first: int = 0

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """The values of the mask file: uint8 (H, W)."""
        return (labels + self.first).astype(np.uint8)


@METRICS.register_module()
class CrfIoUMetric(IoUMetric):
    """`IoUMetric` that can run DenseCRF on the probabilities first, on the device or in worker processes.

    At most two images per worker are pending, so memory does not grow with the data set, and only masks are written to
    disk. With `output_dir`, predictions are written as palette PNGs in VOC's colours; `IoUMetric` writes grey PNGs,
    which the VOC server refuses. An image on which the CRF fails is neither scored nor written; all others are.

    Attributes:
        failures: the images that the latest evaluation did not score, on all ranks: reason by name.

    Args:
        crf: settings of `CRF_FIELDS` that differ from the defaults of `pseudolabel.config.CrfConfig`; None disables
            the CRF.
        workers: processes per rank for the CRF; 0 divides all cores among the ranks.
        output_dir: folder for the predictions, `a/img.png` for the image `a/img.jpg` below its `image_folders`.
        image_folders: folders of the images; `pseudolabel train` and `test` set it.
        options: options of `IoUMetric`, such as `format_only`.

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
        super().__init__(**options)  # without output_dir, because IoUMetric would create it
        self.output_dir, self.image_folders = output_dir, tuple(image_folders)
        self._files = PredictionFiles(output_dir, image_folders) if output_dir else None
        self.crf = _read_crf(crf)
        self._workers = workers or cores_per_process(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[Prediction] = deque()
        self._failed: dict[str, str] = {}  # on this rank, since the last evaluation
        self.failures: dict[str, str] = {}

    def crf_fields(self) -> dict[str, Any]:
        """The CRF's settings, for reports; empty without a CRF."""
        return {} if self.crf is None else {name: getattr(self.crf, name) for name in CRF_FIELDS}

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Score a batch; with a CRF, submit it to the workers and score the oldest pending predictions.

        Args:
            data_batch: `inputs` are the images after the pipeline: uint8 (3, H, W), BGR.
            data_samples: the model's outputs with `pred_sem_seg`, `seg_logits` and, for scoring, `gt_sem_seg`.
        """
        for image, sample in zip(data_batch["inputs"], data_samples, strict=True):
            truth = None if self.format_only else sample["gt_sem_seg"]["data"].squeeze(0).cpu()
            labels = (
                finished(partial(_predicted, sample)) if self.crf is None else self._refine(image, sample, self.crf)
            )
            first = 1 if sample.get("reduce_zero_label") else 0
            self._pending.append(Prediction(sample["img_path"], labels, truth, first))
        self._finish(
            len(self._pending) if self.crf is None else len(self._pending) - PENDING_PER_WORKER * self._workers
        )

    def evaluate(self, size: int) -> dict[str, float]:
        """Scores of the `size` images of all ranks, after the workers have finished; see `IoUMetric`.

        Empty if the CRF failed on every image, or with `format_only`.
        """
        self._finish(len(self._pending))
        self.failures = {key: reason for part in all_gather_object(self._failed) for key, reason in part.items()}
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
        """Future of the labels: done at once with the engine `torch`, on the logits' device; else from a worker."""
        logits = sample["seg_logits"]["data"]
        if image.shape[-2:] != logits.shape[-2:]:
            raise SettingError(
                f"DenseCRF needs '{sample['img_path']}' at its original size {tuple(logits.shape[-2:])}, but the test "
                f"pipeline resizes it to {tuple(image.shape[-2:])}; remove Resize from it, or set "
                "test_evaluator.crf=None"
            )
        if image.dtype != torch.uint8:
            raise SettingError(f"DenseCRF cannot refine '{sample['img_path']}': its image is {image.dtype}, not uint8")
        if not torch.isfinite(logits).all():
            return finished(_diverged)
        pixels = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
        probabilities = logits.float().softmax(0).cpu().numpy()
        crf = self.crf = resolve_engine(crf, logits.device)  # for the report
        if crf.engine == "torch":
            return finished(lambda: _refined_labels(pixels, probabilities, crf, logits.device))
        if self._pool is None:
            self._pool = open_pool(self._workers)
        return self._pool.submit(_refined_labels, pixels, probabilities, crf)

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
                self.results.append((torch.zeros(classes),) * 4)  # no pixels, but the number of results must fit
                continue
            if prediction.truth is not None:
                areas = self.intersect_and_union(torch.from_numpy(labels), prediction.truth, classes, self.ignore_index)
                self.results.append(areas)
            if self._files is not None:
                self._files.write(prediction.path, mask_image(prediction.mask(labels)))


def finished(work: Callable[[], np.ndarray]) -> "Future[np.ndarray]":
    """A finished future with the result of `work`, or with its exception if that concerns this image only."""
    future: Future[np.ndarray] = Future()
    try:
        future.set_result(work())
    except OF_ONE_IMAGE as error:
        future.set_exception(error)
    return future


def _predicted(sample: dict[str, Any]) -> np.ndarray:
    return sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy()


def _refined_labels(
    pixels: np.ndarray, probabilities: np.ndarray, crf: CrfConfig, device: torch.device = CPU
) -> np.ndarray:
    return refine_probabilities(pixels, probabilities, crf, device)[0]


def _diverged() -> np.ndarray:
    raise ValueError("the logits are not finite; the training diverged")


def _read_crf(fields: dict[str, Any] | None) -> CrfConfig | None:
    if fields is None:
        return None
    if unknown := sorted(set(fields) - set(CRF_FIELDS)):
        raise SettingError(f"test_evaluator.crf has no setting {', '.join(unknown)}; it has {', '.join(CRF_FIELDS)}")
    config = CrfConfig(**fields)
    if config.iterations < 1:
        raise SettingError(f"test_evaluator.crf.iterations {config.iterations}: set crf=None to disable the CRF")
    return config
