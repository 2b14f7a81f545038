import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pseudolabel.config import CrfConfig, Experiment, FilterConfig, ModelConfig, WorkConfig
from pseudolabel.errors import VocabularyError
from pseudolabel.io.shipped import resolve
from pseudolabel.stages.segment_settings import digest_settings

BASE = Experiment(model=ModelConfig(name="shapes"))


def digest(experiment: Experiment = BASE, classes: str | None = "dog, cat", sharpen: bool = False) -> str:
    return digest_settings(experiment, classes, sharpen)


@pytest.mark.parametrize(
    "change",
    [
        {"out": "elsewhere"},
        {"work": WorkConfig(batch=3, workers=7, loaders=1)},
        {"model": ModelConfig(name="shapes", compile=True, dtype="bfloat16")},
        {"crf": CrfConfig(iterations=3)},  # without sharpen
        {"filter": FilterConfig(image_threshold=0.5)},  # named classes are not guessed
        {"vocabulary": "coco"},
    ],
    ids=str,
)
def test_settings_that_do_not_change_masks(change: dict) -> None:
    assert digest(replace(BASE, **change)) == digest()


@pytest.mark.parametrize(
    "change", [{"method": "elbo"}, {"work": WorkConfig(seed=1)}, {"model": ModelConfig(image_size=64)}], ids=str
)
def test_settings_that_change_masks(change: dict) -> None:
    assert digest(replace(BASE, **change)) != digest()


def test_classes_and_how_they_are_guessed() -> None:
    found = {digest(classes=classes) for classes in ("dog, cat", "cat, dog", "voc", "coco", "auto", None, "dog")}
    assert len(found) == 7
    guessing = replace(BASE, filter=FilterConfig(image_threshold=0.5))
    assert digest(guessing, "voc") != digest(BASE, "voc")
    assert digest(replace(BASE, crf=CrfConfig(iterations=3)), sharpen=True) != digest(BASE, sharpen=True)
    engines = [replace(BASE, crf=CrfConfig(engine=engine)) for engine in ("torch", "pydensecrf")]
    assert digest(engines[0], sharpen=True) == digest(engines[1], sharpen=True)
    with pytest.raises(VocabularyError):
        digest(classes="absent.yaml")


def test_a_vocabulary_file_is_compared_by_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("classes: [dog, cat]")
    before = digest(classes=str(file))
    file.write_text("classes: [dog, cow]")
    assert digest(classes=str(file)) != before


def test_a_checkpoint_is_compared_by_content(tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(resolve("shapes", "clip"), tmp_path / name)) for name in ("one", "other")]
    experiments = [replace(BASE, filter=FilterConfig(clip=str(folder))) for folder in folders]
    assert digest(experiments[0], "voc") == digest(experiments[1], "voc")
    with open(folders[1] / "model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    assert digest(experiments[0], "voc") != digest(experiments[1], "voc")
