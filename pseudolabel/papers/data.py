"""The papers' data sets in one root folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pseudolabel.config import Experiment, SourceConfig

VOC = "VOCdevkit/VOC2012"
CURATED = "val2017/Coco164kFull_Stuff_Coarse_7"


@dataclass(frozen=True)
class Data:
    """A data set: its folder in the root, its vocabulary, and the settings of its source."""

    folder: str
    vocabulary: str
    settings: dict[str, Any]


# docs/datasets.md says what to download into these folders.
DATA = {
    "VOC train": Data(VOC, "voc", {"kind": "voc", "split": "train"}),
    "VOC val": Data(VOC, "voc", {"kind": "voc", "split": "val"}),
    "VOC-C": Data(VOC, "voc", {"kind": "voc", "split": "voc_c"}),
    "Context": Data("VOCdevkit/VOC2010", "context", {"kind": "context", "split": "val", "labels": "masks"}),
    "COCO-Object": Data("coco", "coco", {"kind": "coco_object", "split": "val2017"}),
    "COCO-Stuff-27": Data("coco", "coco27", {"kind": "coco_stuff", "split": CURATED, "labels": "masks"}),
    "COCO-27": Data("coco", "coco27", {"kind": "coco_stuff", "split": "val2017", "labels": "masks"}),
    "Cityscapes": Data("cityscapes", "cityscapes27", {"kind": "cityscapes", "split": "val", "labels": "masks"}),
}


def select_papers_data(root: str, limit: int) -> Callable[[Experiment, str], Experiment]:
    """A function that gives an experiment a data set of `DATA` in `root`."""

    def select(experiment: Experiment, name: str) -> Experiment:
        data = DATA[name]
        source = SourceConfig(path=f"{root}/{data.folder}", limit=limit, **data.settings)
        return replace(experiment, source=source, vocabulary=data.vocabulary)

    return select


def select_shapes(root: str, limit: int) -> Callable[[Experiment, str], Experiment]:
    """A function that gives an experiment Shapes' validation split in place of every data set."""
    source = SourceConfig(kind="voc", path=root, split="val", limit=limit)
    return lambda experiment, name: replace(experiment, source=source, vocabulary="shapes")
