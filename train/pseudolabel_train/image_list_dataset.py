"""Images and masks as files, named by an image list in any of the usual notations."""

import os
from typing import Any

import cv2
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from pseudolabel.errors import SampleError, UserError
from pseudolabel.io.files import Location, read_bytes
from pseudolabel.io.image_list import ImageNames, read_image_list
from pseudolabel.io.walk import find_images
from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.errors import ImageError
from pseudolabel_train.loading import dataset_metainfo, decode_mask


@DATASETS.register_module()
class ImageListDataset(BaseSegDataset):
    """`BaseSegDataset` with the classes of a vocabulary, for image lists in any of the usual notations.

    A line of `ann_file` is `ID`, `ID.jpg`, or `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`; ids may
    contain blanks, and images may have any suffix in upper or lower case. The mask is `ID` with `seg_map_suffix` in
    `data_prefix.seg_map_path` or, if that file does not exist, the mask that the line names below `data_root`.

    Args:
        vocabulary: a shipped vocabulary's name, such as `voc`, or a YAML file. It replaces `metainfo` and
            `reduce_zero_label`.
        options: options of `BaseSegDataset`.

    Raises:
        ImageListError: if the list cannot be read.
        PathError: if the folder of images cannot be listed.
    """

    def __init__(self, vocabulary: str, **options: Any) -> None:
        self.vocabulary = load_vocabulary(vocabulary)
        known = dataset_metainfo(self.vocabulary)
        options["metainfo"] = {name: known[name] for name in ("classes", "palette")}
        super().__init__(**options, reduce_zero_label=known["reduce_zero_label"])

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dictionary per image, in the order of the list: `BaseSegDataset`'s fields and `num_classes`."""
        images, masks = self.data_prefix["img_path"], self.data_prefix.get("seg_map_path")
        names = ImageNames(find_images(images)[0])
        listed = read_image_list(self.ann_file, names, os.path.basename(images.rstrip("/")))
        fields = {
            "label_map": self.label_map,
            "reduce_zero_label": self.reduce_zero_label,
            "num_classes": len(self.metainfo["classes"]),
        }
        found = []
        for image in listed.values():
            info = {"img_path": os.path.join(images, image.file or f"{image.id}{self.img_suffix}"), **fields}
            if masks is not None:
                info["seg_map_path"] = self._mask(os.path.join(masks, f"{image.id}{self.seg_map_suffix}"), image.mask)
            found.append({**info, "seg_fields": []})
        return found

    def _mask(self, path: str, named: str) -> str:
        """The mask at `path` or, if that file does not exist, the one named in the list."""
        other = os.path.join(self.data_root or "", named.lstrip("/"))
        return other if named and not os.path.isfile(path) and os.path.isfile(other) else path

    def prepare_data(self, idx: int) -> Any:
        """A sample after the pipeline.

        Raises:
            ImageError: if its files cannot be read.
        """
        try:
            return super().prepare_data(idx)
        except (OSError, AssertionError, ValueError, cv2.error) as error:
            if isinstance(error, UserError):
                raise
            raise ImageError(f"'{self.get_data_info(idx)['img_path']}' cannot be read: {error}") from error


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Read the mask of an `ImageListDataset`'s sample: `LoadAnnotations`, but labels and sizes are checked.

    Required keys: `seg_map_path`, `ori_shape`, `num_classes`, `reduce_zero_label`, `seg_fields`.

    Added keys: `gt_seg_map`, uint8 (H, W) as from `LoadShardSample`; `seg_fields` gains `gt_seg_map`.

    Raises:
        ImageError: if the mask is missing or damaged, in colour, of another size than its image, or has a label
            outside the classes.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results["seg_map_path"]
        try:
            results["gt_seg_map"] = decode_mask(
                read_bytes(Location(path)),
                f"the mask '{path}'",
                results["ori_shape"],
                results["num_classes"],
                results["reduce_zero_label"],
            )
        except SampleError as error:
            raise ImageError(str(error)) from error
        results["seg_fields"].append("gt_seg_map")
        return results
