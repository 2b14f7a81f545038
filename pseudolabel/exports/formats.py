"""The formats of exports by name."""

from pseudolabel.exports.format import Format
from pseudolabel.exports.names import FormatName
from pseudolabel.exports.png import PNG

FORMATS: dict[FormatName, Format] = {"png": PNG}
