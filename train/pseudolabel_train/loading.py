"""From a sample's bytes in a shard to what MMSegmentation's transforms work on."""

from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from pseudolabel.errors import SampleError, ShardError
from pseudolabel.io.images import read_mask
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.shards.find import hint
from pseudolabel.vocabulary import Vocabulary


def dataset_metainfo(vocabulary: Vocabulary) -> dict[str, Any]:
    """What MMSegmentation's data sets say of themselves: `classes` by label value, their `palette`, how 0 is taken.

    Background comes first. A vocabulary without background has `reduce_zero_label`: 0, which says that a mask gives no
    label there, is ignored in training as in scoring, and the network's classes are the vocabulary's from 0.
    """
    first = 0 if vocabulary.has_background else 1
    palette = vocabulary.palette[first : len(vocabulary.names)].tolist()
    return {
        "classes": vocabulary.names[first:],
        "palette": palette,
        "label_map": None,
        "reduce_zero_label": not vocabulary.has_background,
    }


def sample_results(shard: str, key: str, image: bytes, mask: bytes, metainfo: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as the data sets hand it to `LoadShardSample`: undecoded, with the fields of MMSegmentation's data sets.

    Args:
        shard: path of the tar.
        key: of the sample.
        image: JPEG file.
        mask: palette PNG file.
        metainfo: the data set's, as `dataset_metainfo` gives it.
    """
    return {
        "img_path": f"{shard}/{key}",
        "seg_map_path": f"{shard}/{key}.png",
        "label_map": None,
        "reduce_zero_label": metainfo["reduce_zero_label"],
        "seg_fields": [],
        "key": key,
        "image_bytes": image,
        "mask_bytes": mask,
        "num_classes": len(metainfo["classes"]),
    }


@TRANSFORMS.register_module()
class LoadShardSample(BaseTransform):
    """Decode a sample of a shard, as `LoadImageFromFile` and `LoadAnnotations` do with files.

    Required keys: `image_bytes`, `mask_bytes`, `num_classes`, `img_path`, `reduce_zero_label`, `seg_fields`; the bytes
    are taken out.

    Added keys: `img`, uint8 (H, W, 3) in BGR; `img_shape` and `ori_shape`, (H, W); `gt_seg_map`, uint8 (H, W), 0
    background, 1..N classes, 255 ignore, or with `reduce_zero_label` 0..N-1 classes; `seg_fields` gains `gt_seg_map`.

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
                results["gt_seg_map"] = decode_mask(
                    mask, "the mask", results["ori_shape"], num_classes, results["reduce_zero_label"]
                )
                results["seg_fields"].append("gt_seg_map")
        except SampleError as error:
            shard = results["img_path"].removesuffix(f"/{results['key']}")
            raise ShardError(f"'{shard}': sample '{results['key']}': {error}; {hint(shard)}") from error
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(with_image={self.with_image}, with_mask={self.with_mask})"


def _decode_image(data: bytes) -> np.ndarray:
    try:
        image = mmcv.imfrombytes(data, flag="color", backend="cv2")
    except cv2.error:  # of no bytes at all; damage gives None
        image = None
    if image is None:
        raise SampleError("unreadable", "the image is damaged")
    return image


def decode_mask(
    data: bytes, origin: str, size: tuple[int, int], num_classes: int, reduce_zero_label: bool = False
) -> np.ndarray:
    """A mask file's labels as the network numbers them.

    Args:
        data: palette or grey PNG.
        origin: the file's name for messages.
        size: (H, W) of the image.
        num_classes: of the network, background included where there is one.
        reduce_zero_label: whether 0 is no label, so that it becomes 255 and the classes 1..N become 0..N-1.

    Returns:
        uint8 (H, W), 0..num_classes-1 or 255.

    Raises:
        SampleError: if the mask is damaged, in colour or of another size, or a label is none of the classes.
    """
    labels = read_mask(data, origin)
    if labels.shape != tuple(size):
        raise SampleError("size", f"{origin} has {labels.shape} pixels (H, W) where the image has {tuple(size)}")
    last = num_classes if reduce_zero_label else num_classes - 1
    strange = labels[(labels > last) & (labels != IGNORE)]
    if strange.size:
        limit = f"the vocabulary ends at {last}"
        raise SampleError("label", f"{origin} has label {strange[0]} where {limit} (is `vocabulary` the run's?)")
    if reduce_zero_label:
        labels = np.where((labels == BACKGROUND) | (labels == IGNORE), IGNORE, labels - 1).astype(np.uint8)
    return labels
