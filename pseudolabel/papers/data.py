"""The data sets of the papers, below one root folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pseudolabel.config import Experiment, SourceConfig

VOC = "VOCdevkit/VOC2012"
CURATED = "val2017/Coco164kFull_Stuff_Coarse_7"


@dataclass(frozen=True)
class Data:
    """Where a data set lies below the root, how it is read, and the vocabulary of its labels."""

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


def on_papers_data(root: str, limit: int) -> Callable[[Experiment, str], Experiment]:
    """Puts an experiment on a data set of `DATA`, below `root`."""

    def put(experiment: Experiment, name: str) -> Experiment:
        data = DATA[name]
        source = SourceConfig(path=f"{root}/{data.folder}", limit=limit, **data.settings)
        return replace(experiment, source=source, vocabulary=data.vocabulary)

    return put


def on_shapes(root: str, limit: int) -> Callable[[Experiment, str], Experiment]:
    """Puts an experiment on Shapes' validation images, whatever data set is asked for."""
    source = SourceConfig(kind="voc", path=root, split="val", limit=limit)
    return lambda experiment, name: replace(experiment, source=source, vocabulary="shapes")
