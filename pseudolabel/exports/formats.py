"""The formats of exports by name."""

from pseudolabel.exports.coco import COCO
from pseudolabel.exports.cvat import CVAT
from pseudolabel.exports.format import Format
from pseudolabel.exports.huggingface import HUGGING_FACE
from pseudolabel.exports.labelstudio import LABEL_STUDIO
from pseudolabel.exports.names import FormatName
from pseudolabel.exports.png import PNG
from pseudolabel.exports.voc import VOC
from pseudolabel.exports.yolo import YOLO

FORMATS: dict[FormatName, Format] = {
    "png": PNG,
    "voc": VOC,
    "coco": COCO,
    "yolo": YOLO,
    "labelstudio": LABEL_STUDIO,
    "cvat": CVAT,
    "hf": HUGGING_FACE,
}
