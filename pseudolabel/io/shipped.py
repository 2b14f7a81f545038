"""The small models that ship with the package; any setting that names a model accepts their names."""

from importlib import resources
from typing import Literal

Part = Literal["diffusion", "clip", "captioner", "nouns"]

NAME = "shapes"
STANDARD = "shapes_standard"
_TEXT: dict[Part, str] = {
    "clip": "shapes-text/clip",
    "captioner": "shapes-text/captioner",
    "nouns": "shapes-text/nouns",
}
_FOLDERS: dict[str, dict[Part, str]] = {
    NAME: {"diffusion": "shapes", **_TEXT},
    STANDARD: {"diffusion": "shapes-standard", **_TEXT},
}
NAMES = tuple(_FOLDERS)


def resolve(name: str, part: Part) -> str:
    """The folder of a shipped model for this part by its name; any other name is returned unchanged."""
    if name not in _FOLDERS:
        return name
    return str(resources.files("pseudolabel.shapes") / "models" / _FOLDERS[name][part])
