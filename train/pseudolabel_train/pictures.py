"""Pictures of validation samples, where the Visualizer's backends put them: a folder, TensorBoard."""

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
class PictureHook(Hook):
    """Draws ground truth and prediction of every so many validation samples.

    MMSegmentation's `SegVisualizationHook` reads the image's file again, of every sample, drawn or not, and
    finds none where samples come from shards. Here the picture is drawn on the batch's own pixels. Tests draw nothing:
    their predictions are written as masks.

    Args:
        interval: samples from one that is drawn to the next.
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
            runner: whose visualizer draws.
            batch_idx: number of the batch in this validation.
            data_batch: with `inputs`, the images as the pipeline left them: uint8 (3, H, W), BGR.
            outputs: the model's, with ground truth and prediction at the images' own size.
        """
        if batch_idx % self.interval or not data_batch or not outputs:
            return
        sample = outputs[0]
        pixels = np.ascontiguousarray(data_batch["inputs"][0].flip(0).permute(1, 2, 0).numpy())
        height, width = sample.ori_shape
        picture = mmcv.imresize(pixels, (width, height))
        runner.visualizer.add_datasample(f"val_{Path(sample.img_path).stem}", picture, sample, step=runner.iter)
