"""The formats of exports by name."""

from pseudolabel.exports.format import Format
from pseudolabel.exports.names import FormatName
from pseudolabel.exports.png import PNG
from pseudolabel.exports.voc import VOC

FORMATS: dict[FormatName, Format] = {"png": PNG, "voc": VOC}
