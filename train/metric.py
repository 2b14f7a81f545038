"""MMSegmentation's IoUMetric with DenseCRF before it and palette PNGs after it."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from pseudolabel.config import CrfConfig
from pseudolabel.errors import SettingError
from pseudolabel.refine.densecrf import refine_probabilities
from pseudolabel.refine.engines import resolve_engine
from pseudolabel.sources.images import mask_image
from pseudolabel.stages.workers import open_pool, share_of_cores

PENDING_PER_WORKER = 2
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
        key: the image's name, for the file that is written.
        labels: int (H, W), or the worker's promise of them.
        truth: int (H, W); None where there is no ground truth.
        first: the mask value of label 0: 1 where the classes have no background and a mask's 0 says that there is none.
    """

    key: str
    labels: "torch.Tensor | Future[np.ndarray]"
    truth: torch.Tensor | None
    first: int = 0

    def mask(self, labels: torch.Tensor) -> np.ndarray:
        """The labels as mask files number them: uint8 (H, W)."""
        return (labels.numpy() + self.first).astype(np.uint8)


@METRICS.register_module()
class CrfIoUMetric(IoUMetric):
    """`IoUMetric` that can run DenseCRF on the probabilities first: on the device, or in worker processes behind it.

    At most a few images wait for a worker at any time, so that memory does not grow with the data set and nothing but
    masks is written to disk. With `output_dir` the predictions are written as palette PNGs in VOC's colours, where
    `IoUMetric` writes grey ones that the VOC server does not take.

    Args:
        crf: those of `CRF_FIELDS` that differ from the defaults of `pseudolabel.config.CrfConfig`; None leaves the CRF
            out.
        workers: processes per rank for the CRF; 0 shares all cores between the ranks.
        options: those of `IoUMetric`, such as `output_dir` and `format_only`.

    Raises:
        SettingError: if `crf` has an unknown field or no iterations.
    """

    def __init__(self, crf: dict[str, Any] | None = None, workers: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.crf = _read_crf(crf)
        self._workers = workers or share_of_cores(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[Prediction] = deque()

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
            if self.crf is None:
                labels = sample["pred_sem_seg"]["data"].squeeze(0).cpu()
            else:
                labels = self._refine(image, sample, self.crf)
            first = 1 if sample.get("reduce_zero_label") else 0
            self._pending.append(Prediction(Path(sample["img_path"]).stem, labels, truth, first))
        self._finish(
            len(self._pending) if self.crf is None else len(self._pending) - PENDING_PER_WORKER * self._workers
        )

    def evaluate(self, size: int) -> dict[str, float]:
        """Score of the `size` images of all ranks, once the workers are done; see `IoUMetric`."""
        self._finish(len(self._pending))
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self.format_only:
            barrier()
            print_log(f"the predictions of {size} images are in '{self.output_dir}'", logger="current")
            return {}
        return super().evaluate(size)

    def _refine(
        self, image: torch.Tensor, sample: dict[str, Any], crf: CrfConfig
    ) -> "torch.Tensor | Future[np.ndarray]":
        """Labels from the engine `torch`, at once on the logits' device, or a worker's promise of pydensecrf's."""
        logits = sample["seg_logits"]["data"]
        if image.shape[-2:] != logits.shape[-2:]:
            raise SettingError(
                f"DenseCRF needs '{sample['img_path']}' at its own size {tuple(logits.shape[-2:])}, but the test "
                f"pipeline made it {tuple(image.shape[-2:])}; take Resize out of it, or set test_evaluator.crf=None"
            )
        if image.dtype != torch.uint8 or not torch.isfinite(logits).all():
            fault = "logits are not finite, the training diverged"
            if image.dtype != torch.uint8:
                fault = f"image is {image.dtype}, not uint8"
            raise SettingError(f"DenseCRF cannot refine '{sample['img_path']}': its {fault}")
        pixels = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
        probabilities = logits.float().softmax(0).cpu().numpy()
        crf = self.crf = resolve_engine(crf, logits.device)  # for the report
        if crf.engine == "torch":
            return torch.from_numpy(refine_probabilities(pixels, probabilities, crf, logits.device))
        if self._pool is None:
            self._pool = open_pool(self._workers, refine_probabilities.__module__)
        return self._pool.submit(refine_probabilities, pixels, probabilities, crf)

    def _finish(self, count: int) -> None:
        """Score the `count` oldest predictions, waiting for them where necessary."""
        for _ in range(count):
            prediction = self._pending.popleft()
            labels = prediction.labels
            if isinstance(labels, Future):
                labels = torch.from_numpy(labels.result())
            if prediction.truth is not None:
                classes = len(self.dataset_meta["classes"])
                self.results.append(self.intersect_and_union(labels, prediction.truth, classes, self.ignore_index))
            if self.output_dir is not None:
                path = Path(self.output_dir) / f"{prediction.key}.png"
                path.parent.mkdir(parents=True, exist_ok=True)  # IoUMetric makes it on the first rank's machine alone
                mask_image(prediction.mask(labels)).save(path)


def _read_crf(fields: dict[str, Any] | None) -> CrfConfig | None:
    if fields is None:
        return None
    if unknown := sorted(set(fields) - set(CRF_FIELDS)):
        raise SettingError(f"test_evaluator.crf has no field {', '.join(unknown)}; it has {', '.join(CRF_FIELDS)}")
    config = CrfConfig(**fields)
    if config.iterations < 1:
        raise SettingError(f"test_evaluator.crf.iterations {config.iterations}: set crf=None to go without a CRF")
    return config
