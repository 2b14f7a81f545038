"""Settings of the data: where images and image-level labels come from."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SourceConfig:
    """Where images and image-level labels come from.

    Args:
        kind: the data's layout: `voc` (JPEGImages, ImageSets, Annotations), `table` (CSV, JSONL or Parquet
            with columns such as `image` and `labels`), `folder` (one folder per class) or `shards` (WebDataset tars);
            or one of the data sets `context`, `coco_object`, `coco_stuff` and `cityscapes` as in docs/datasets.md.
        path: the data set's root folder, the table's file, or a pattern of shards such as `data/*.tar`; fsspec URLs
            work.
        split: name of the image list, such as those in VOC's ImageSets/Segmentation, or the path of a list; for
            `coco_object` also the path of a JSON file; for `table`, `folder` and `shards` a name for reports.
        labels: `xml` are the labels that come with the images: Annotations of `voc`, the classes of the annotated
            objects of `coco_object`, none for `context`, `coco_stuff` and `cityscapes`. `masks` are the classes in the
            ground truth. `none` uses no labels. Else the path of a label file: JSON, txt or npz of image id (or key,
            file name or path) to class names, indices or one-hot vectors; COCO's JSON; `FILE.json#LIST+LIST` for the
            union of named lists in one file; JSONL with `key` and `classes`; or a folder of such files, such as the one
            that `pseudolabel filter` writes.
        masks: folder of ground-truth masks for scoring and for `labels: masks`, named as the images; their values are
            the vocabulary's indices. Not needed for data sets that come with masks.
        columns: for `table`, the columns of images, labels, keys and masks, such as `image=path,labels=tags`. By
            default `image` or `file_name`, `labels` or `label`, `key` and `mask`; the last two may be absent.
        key_prefix: for `shards`, `shard` puts the shard's name before every key, for shards that each number their
            samples from 0.
        unlabelled: images without labels are recorded and skipped (`skip`), or get a mask of background alone
            (`background`).
        max_pixels: larger images are recorded and skipped before they are decoded.
        limit: number of images to use, from the start of the sorted list; 0 uses all.
    """

    kind: str = "voc"
    path: str = ""
    split: str = "train"
    labels: str = "xml"
    masks: str = ""
    columns: str = ""
    key_prefix: Literal["", "shard"] = ""
    unlabelled: Literal["skip", "background"] = "skip"
    max_pixels: int = 100_000_000
    limit: int = 0
