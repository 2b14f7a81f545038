"""Training and testing at several scales, as DeepLabV2 does (Chen et al., TPAMI 2018, section 4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

LARGEST = "max"


@MODELS.register_module()
class MultiScaleSegmentor(EncoderDecoder):
    """An `EncoderDecoder` with any backbone and head that processes its images at several scales.

    `train_cfg.scales` (default: 1 only): the head's loss is computed at each scale and, with several scales, for their
    element-wise maximum; labels are resized to the logits' resolution by nearest neighbour. The losses are summed.

    `test_cfg.scales` (default: 1 only) and `test_cfg.flip`: the logits of all scales (with `flip`, of mirrored images,
    too) are resized to the resolution of the first, and their element-wise maximum is taken. MMSegmentation's
    `SegTTAModel` averages probabilities instead.
    """

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses by name, `decode.1.0.loss_ce`, ..., `decode.max.loss_ce`, and the pixel accuracy of the maximum.

        Args:
            inputs: normalised images, float (B, 3, H, W).
            data_samples: each with `gt_sem_seg`, int (1, H, W).
        """
        scales = (self.train_cfg or {}).get("scales", (1.0,))
        losses: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        for scale in scales:
            features = self.extract_feat(_rescale(inputs, scale))
            logits[str(scale)] = self.decode_head(features)
            if self.with_auxiliary_head and scale == scales[0]:
                losses |= self._auxiliary_head_forward_train(features, data_samples)
        if len(scales) > 1:
            logits[LARGEST] = _largest(list(logits.values()))
        for name, values in logits.items():
            # `accuracy` is reported for the final logits only, to keep the log short.
            found = self.decode_head.loss_by_feat(values, _shrink_labels(data_samples, values.shape[-2:]))
            wanted = {key: value for key, value in found.items() if "loss" in key or name == list(logits)[-1]}
            losses |= add_prefix(wanted, f"decode.{name}")
        return losses

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Largest logits over all scales, at the images' size.

        Args:
            inputs: normalised images, float (B, 3, H, W).
            batch_img_metas: MMSegmentation's description of each image.

        Returns:
            float (B, classes, H, W).
        """
        logits, test_cfg = [], self.test_cfg or {}
        for scale in test_cfg.get("scales", (1.0,)):
            scaled = _rescale(inputs, scale)
            logits.append(self.decode_head(self.extract_feat(scaled)))
            if test_cfg.get("flip", False):
                logits.append(self.decode_head(self.extract_feat(scaled.flip(-1))).flip(-1))
        return self.decode_head.predict_by_feat(_largest(logits), batch_img_metas)


def _rescale(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def _largest(logits: list[Tensor]) -> Tensor:
    """Element-wise maximum at the resolution of the first."""
    size = logits[0].shape[-2:]
    resized = [F.interpolate(values, size, mode="bilinear", align_corners=False) for values in logits[1:]]
    return torch.stack([logits[0], *resized]).amax(0)


def _shrink_labels(data_samples: Sequence[SegDataSample], size: torch.Size) -> list[SegDataSample]:
    """Samples with labels at the logits' resolution, each taken from the centre of its cell as in Pillow."""
    labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
    shrunk = F.interpolate(labels.float(), size, mode="nearest-exact").to(labels.dtype)
    return [
        SegDataSample(gt_sem_seg=type(sample.gt_sem_seg)(data=label))
        for sample, label in zip(data_samples, shrunk, strict=True)
    ]
