"""The small models that ship with the package; any setting that names a model accepts the name `shapes` for them."""

from importlib import resources
from typing import Literal

Part = Literal["diffusion", "clip", "captioner", "nouns"]

NAME = "shapes"
_FOLDERS: dict[Part, str] = {
    "diffusion": "shapes",
    "clip": "shapes-text/clip",
    "captioner": "shapes-text/captioner",
    "nouns": "shapes-text/nouns",
}


def resolve(name: str, part: Part) -> str:
    """The folder of the shipped model for this part if the name is `shapes`; any other name is returned unchanged."""
    return str(resources.files("pseudolabel.shapes") / "models" / _FOLDERS[part]) if name == NAME else name
