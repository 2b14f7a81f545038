"""The recipes of the page about methods, data sets and formats of one's own work as they are written."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import pseudolabel as pl
from pseudolabel.config import SourceConfig
from pseudolabel.exports.formats import FORMATS
from pseudolabel.io.folder import Folder
from pseudolabel.records import LabelMap
from pseudolabel.shards.classes import write_classes
from pseudolabel.shards.sample import encode_mask
from pseudolabel.sources.source import KINDS, open_source
from pseudolabel.vocabulary import load_vocabulary
from tests.shards.samples import write_shard

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def block(text: str, language: str = "python") -> str:
    """The block of code that holds a text."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL) if text in code]
    assert len(found) == 1
    return found[0]


def run(code: str) -> dict[str, Any]:
    """The names that a block defines."""
    module = ModuleType("recipe")
    exec(compile(code, str(PAGE), "exec"), vars(module))
    return vars(module)


def photo(path: Path, size: tuple[int, int]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path.read_bytes()


@pytest.fixture
def shapes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/shapes/masks` in the working folder, with masks of images of several sizes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/shapes/masks"
    folder.mkdir(parents=True)
    samples = {}
    for number, (width, height) in enumerate([(60, 40), (40, 60), (64, 64), (100, 80), (33, 57)]):
        labels = np.zeros((height, width), np.uint8)
        labels[:10], labels[-1] = 2, 255
        jpeg = photo(tmp_path / "photo.jpg", (width, height))
        samples[f"a/{number}"] = encode_mask(jpeg, LabelMap("", labels), {})
    write_shard(folder / "masks-000000.tar", samples)
    write_classes(Folder(str(folder)), load_vocabulary("shapes").names)
    return folder


def test_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("from pseudolabel.sources.pets import list_pets", '"pets": list_pets'):
        assert text in PAGE.read_text()
    monkeypatch.setitem(KINDS, "pets", run(block("def list_pets"))["list_pets"])
    monkeypatch.chdir(tmp_path)
    for name in ("Abyssinian_1", "Bombay_12", "great_pyrenees_4"):
        photo(tmp_path / f"pets/images/{name}.jpg", (6, 4))
    (tmp_path / "pets/images/notes.txt").write_text("none")
    settings = yaml.safe_load(block("kind: pets", "yaml"))
    source = open_source(SourceConfig(**settings["source"]), load_vocabulary(settings["vocabulary"]))
    assert [(entry.key, entry.classes) for entry in source.entries[:2]] == [("Abyssinian_1", (1,)), ("Bombay_12", (4,))]
    assert "unknown class 'great pyrenees'" in str(source.entries[2].problem)
    assert source.left_out.reasons == {".txt": 1}


def test_the_training_loop_takes_images_of_several_sizes(shapes_run: Path) -> None:
    names = run(block("DataLoader"))
    assert names["images"].shape[1:] == (3, 128, 128)
    assert set(names["masks"].unique().tolist()) == {0, 2, 255}
    assert names["loss"].isfinite()


def test_the_walk_over_the_items(shapes_run: Path, tmp_path: Path) -> None:
    run(block('pl.ShardDataset("runs/shapes/masks"):'))
    written = sorted((tmp_path / "export").rglob("*.png"))
    assert len(written) == 5
    assert Image.open(written[0]).size == (60, 40)


def test_the_format(shapes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "areas", run(block("AREAS ="))["AREAS"])  # type: ignore[arg-type]
    done = pl.export(shapes_run, to="areas", folder=tmp_path / "areas")  # type: ignore[arg-type]
    assert done.samples == 5
    lines = (tmp_path / "areas/areas.csv").read_text().splitlines()
    second = load_vocabulary("shapes").names[2]
    assert lines[:2] == [f"a/0,{second},600", "a/0,ignore,60"]
    assert len(list((tmp_path / "areas/masks").rglob("*.png"))) == 5
