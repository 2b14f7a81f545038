"""The small models that ship with the package: `shapes` stands for their folders wherever a model is named."""

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
    """The folder that `shapes` stands for as this part; any other name stays as it is."""
    return str(resources.files("pseudolabel.shapes") / "models" / _FOLDERS[part]) if name == NAME else name
