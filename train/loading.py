"""From a sample's bytes in a shard to what MMSegmentation's transforms work on."""

from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from pseudolabel.records import IGNORE
from pseudolabel.sources.entry import BadSample
from pseudolabel.sources.images import read_mask
from pseudolabel.vocabulary import Vocabulary
from pseudolabel_train.shard_list import ShardError, mend


def dataset_metainfo(vocabulary: Vocabulary) -> dict[str, Any]:
    """What MMSegmentation's data sets say of themselves: `classes` by label value and `palette`, background first."""
    palette = vocabulary.palette[: len(vocabulary.names)].tolist()
    return {"classes": vocabulary.names, "palette": palette, "label_map": None, "reduce_zero_label": False}


def sample_results(shard: str, key: str, image: bytes, mask: bytes, classes: Sequence[str]) -> dict[str, Any]:
    """A sample as the data sets hand it to `LoadShardSample`: undecoded, with the fields of MMSegmentation's data sets.

    Args:
        shard: path of the tar.
        key: of the sample.
        image: JPEG file.
        mask: palette PNG file.
        classes: names by label value, background first.
    """
    return {
        "img_path": f"{shard}/{key}",
        "seg_map_path": f"{shard}/{key}.png",
        "label_map": None,
        "reduce_zero_label": False,
        "seg_fields": [],
        "key": key,
        "image_bytes": image,
        "mask_bytes": mask,
        "num_classes": len(classes),
    }


@TRANSFORMS.register_module()
class LoadShardSample(BaseTransform):
    """Decode a sample of a shard, as `LoadImageFromFile` and `LoadAnnotations` do with files.

    Required keys: `image_bytes`, `mask_bytes`, `num_classes`, `img_path`, `seg_fields`; the bytes are taken out.

    Added keys: `img`, uint8 (H, W, 3) in BGR; `img_shape` and `ori_shape`, (H, W); `gt_seg_map`, uint8 (H, W), 0
    background, 1..N classes, 255 ignore; `seg_fields` gains `gt_seg_map`.

    Args:
        with_image, with_mask: which of the two to load. A test pipeline that resizes the image loads the mask in a
            second step after that, so that it keeps its size, as with `LoadAnnotations`.

    Raises:
        ShardError: if the image or the mask is damaged, they differ in size, or a label is none of the classes.
    """

    def __init__(self, with_image: bool = True, with_mask: bool = True) -> None:
        self.with_image, self.with_mask = with_image, with_mask

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        try:
            if self.with_image:
                results["img"] = image = _decode_image(results.pop("image_bytes"))
                results["img_shape"] = results["ori_shape"] = image.shape[:2]
            if self.with_mask:
                mask, num_classes = results.pop("mask_bytes"), results.pop("num_classes")
                results["gt_seg_map"] = _decode_mask(mask, results["ori_shape"], num_classes)
                results["seg_fields"].append("gt_seg_map")
        except BadSample as error:
            shard = results["img_path"].removesuffix(f"/{results['key']}")
            raise ShardError(f"'{shard}': sample '{results['key']}': {error}; {mend(shard)}") from error
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(with_image={self.with_image}, with_mask={self.with_mask})"


def _decode_image(data: bytes) -> np.ndarray:
    try:
        image = mmcv.imfrombytes(data, flag="color", backend="cv2")
    except cv2.error:  # of no bytes at all; damage gives None
        image = None
    if image is None:
        raise BadSample("unreadable", "the image is damaged")
    return image


def _decode_mask(data: bytes, size: tuple[int, int], num_classes: int) -> np.ndarray:
    labels = read_mask(data, "the mask")
    if labels.shape != size:
        raise BadSample("size", f"the mask has {labels.shape} pixels (H, W) where the image has {size}")
    strange = labels[(labels >= num_classes) & (labels != IGNORE)]
    if strange.size:
        limit = f"the vocabulary ends at {num_classes - 1}"
        raise BadSample("label", f"the mask has label {strange[0]} where {limit} (is `vocabulary` the run's?)")
    return labels
