"""Mask shards with the shapes that formats get wrong: a ring, two discs, a speck, nothing, ignored pixels."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.io.tar import Members
from pseudolabel.records import LabelMap
from pseudolabel.shards.sample import encode_mask
from tests.shards.runs import write_run

SIZE = (40, 56)  # height and width
NAMES = ("background", "ring", "disc", "Käse, alt")


def path_of(key: str) -> str:
    """The name of a key's files where images and masks are paired by their folders' names."""
    return {"folder/images/épicé 100%": "folder/images%2Fépicé 100%25"}.get(key, key)


def distance(row: float, column: float) -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return np.hypot(rows - row, columns - column)


def draw() -> dict[str, np.ndarray]:
    """Masks by key; two keys have slashes, one letters beyond ASCII, one a per cent sign."""
    ring, discs, speck, ignored, touching = (np.zeros(SIZE, np.uint8) for _ in range(5))
    ring[(distance(20, 28) < 15) & (distance(20, 28) >= 7)] = 1
    discs[(distance(12, 12) < 8) | (distance(26, 40) < 11)] = 2
    discs[35:39, 2:20] = 3
    speck[5, 7] = 3
    ignored[distance(20, 28) < 15] = 255
    ignored[distance(20, 28) < 10] = 2
    touching[2:20, 2:20] = 1
    touching[20:38, 20:50] = 1  # the two share a corner
    touching[20:38, 2:20] = 2
    return {
        "ring": ring,
        "folder/two discs": discs,
        "folder/images/épicé 100%": speck,
        "nothing": np.zeros(SIZE, np.uint8),
        "ignored": ignored,
        "touching": touching,
    }


def members(key: str, labels: np.ndarray, number: int) -> Members:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*labels.shape, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return encode_mask(buffer.getvalue(), LabelMap(key, labels), {"key": key, "confidence": 0.75})


@pytest.fixture(scope="session")
def drawn() -> dict[str, np.ndarray]:
    return draw()


@pytest.fixture
def run(tmp_path: Path, drawn: dict[str, np.ndarray]) -> Path:
    """The output folder of a finished run: three shards of two samples each."""
    samples = [(key, members(key, labels, number)) for number, (key, labels) in enumerate(sorted(drawn.items()))]
    write_run(tmp_path / "out" / "masks", "masks", [samples[:2], samples[2:4], samples[4:]])
    by_label = {str(label): name for label, name in enumerate(NAMES)}
    (tmp_path / "out" / "masks" / "id2label.json").write_text(json.dumps({**by_label, "255": "ignore"}))
    return tmp_path / "out"
