from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.vocabulary import Vocabulary, load_vocabulary

SaveImage = Callable[..., Path]


@pytest.fixture(scope="session")
def voc() -> Vocabulary:
    return load_vocabulary("voc")


@pytest.fixture
def save_image(tmp_path: Path) -> SaveImage:
    """Write a plain image below tmp_path, its format by its suffix."""

    def save(name: str, colour: object = "red", size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path)
        return path

    return save
