"""Figures of validation samples, written by the Visualizer's backends: to a folder, to TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample


@HOOKS.register_module()
class FigureHook(Hook):
    """Draw ground truth and prediction of every `interval`-th validation batch.

    MMSegmentation's `SegVisualizationHook` reads every sample's image file again, and samples in shards have no such
    file. This hook draws on the pixels of the batch. It does nothing in tests, whose predictions are written as masks.

    Args:
        interval: number of batches from one figure to the next.
    """

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw the first sample of a batch.

        Args:
            runner: its visualizer draws.
            batch_idx: index of the batch in this validation.
            data_batch: `inputs` are the images after the pipeline: uint8 (3, H, W), BGR.
            outputs: the model's outputs, with ground truth and prediction at the images' original size.
        """
        if batch_idx % self.interval or not data_batch or not outputs:
            return
        sample = outputs[0]
        pixels = np.ascontiguousarray(data_batch["inputs"][0].flip(0).permute(1, 2, 0).numpy())
        height, width = sample.ori_shape
        figure = mmcv.imresize(pixels, (width, height))
        runner.visualizer.add_datasample(f"val_{Path(sample.img_path).stem}", figure, sample, step=runner.iter)
