"""The names of the formats of exports."""

from typing import Literal

FormatName = Literal["png", "voc", "coco", "yolo", "labelstudio", "cvat", "hf"]
