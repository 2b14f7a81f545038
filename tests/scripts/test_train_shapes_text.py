"""The text side of Shapes: the script that trains it, and the models that ship."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import spacy
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from pseudolabel.config import CaptionConfig
from pseudolabel.shapes.world import BACKGROUNDS, Scene, draw_scene
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.clip import ClipScorer
from pseudolabel.vocabulary import load_vocabulary

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "pseudolabel/shapes/models/shapes-text"
SHAPES = load_vocabulary("shapes")
WORDS = [*SHAPES.names[1:], *BACKGROUNDS]


@pytest.fixture(scope="module")
def training() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "scripts")
        return importlib.import_module("train_shapes_text")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Of a seed that neither training nor any choice has seen."""
    return [draw_scene(np.random.default_rng([77, number])) for number in range(24)]


@pytest.fixture(scope="module")
def clip() -> ClipScorer:
    return ClipScorer("shapes", torch.device("cpu"), "--filter.clip")


@pytest.mark.slow
def test_the_script_writes_checkpoints_in_the_published_format(tmp_path):
    steps = ["--clip-steps", "21", "--captioner-steps", "21", "--nouns-steps", "2", "--batch", "4", "--scenes", "20"]
    command = [sys.executable, "scripts/train_shapes_text.py", "--out", str(tmp_path), *steps, "--threads", "1"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "clip step 0 loss" in finished.stdout
    CLIPModel.from_pretrained(tmp_path / "clip", use_safetensors=True)
    CLIPProcessor.from_pretrained(tmp_path / "clip")
    AutoModelForImageTextToText.from_pretrained(tmp_path / "captioner", use_safetensors=True)
    AutoProcessor.from_pretrained(tmp_path / "captioner")
    assert [token.text for token in spacy.load(tmp_path / "nouns")("two stars")] == ["two", "stars"]
    provenance = json.loads((tmp_path / "training.json").read_text())
    assert provenance["data"] == {"source": "shapes", "seed": 0, "difficulty": "easy", "scenes": 20, "size": 128}
    assert provenance["captioner"]["steps"] == 21


def test_regions_have_the_area_shares_of_their_words(training):
    drawn = [draw_scene(np.random.default_rng([1, number])) for number in range(12)]
    chosen = np.arange(12).repeat(2)
    regions, shares = training.draw_regions(training.stack(drawn), chosen, np.random.default_rng(0))
    assert regions.shape == (24, 128, 128)
    for region, row, number in zip(regions.numpy(), shares.numpy(), chosen, strict=True):
        assert set(np.unique(region)) == {0, 1}
        inside, ground = drawn[number].labels[region == 1], BACKGROUNDS.index(drawn[number].background)
        covered = [np.mean(inside == label) for label in range(1, len(SHAPES) + 1)]
        covered += [np.mean(inside == 0) if place == ground else 0 for place in range(len(BACKGROUNDS))]
        np.testing.assert_allclose(row, covered, atol=1e-6)


def test_training_and_the_image_processors_see_the_same_pixels(training, scenes):
    processor = training.clip_images()
    expected = processor([scene.image for scene in scenes[:3]], return_tensors="pt").pixel_values
    pixels = training.normalise(training.stack(scenes[:3]).images.float(), processor)
    assert (pixels - expected).abs().max() < 0.02  # the processor rounds to whole grey levels


# The models that ship


def test_shipped_files_are_small_and_of_the_training_seed():
    weights = [*SHIPPED.rglob("*.safetensors")]
    assert len(weights) == 2
    assert sum(path.stat().st_size for path in weights) <= 10e6
    assert sum(path.stat().st_size for path in (SHIPPED / "nouns").rglob("*") if path.is_file()) <= 500e3
    for path in weights:
        with safe_open(path, "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    training, scores = (json.loads((SHIPPED / name).read_text()) for name in ("training.json", "scores.json"))
    assert training["data"]["seed"] == 0
    assert scores["data"]["seed"] == 20231


def test_clip_ranks_the_classes_of_an_image_above_others(clip, scenes):
    sentences = [f"A photo of a {name}" for name in SHAPES.names[1:]]
    cosines = clip.similarities([scene.image for scene in scenes], sentences).numpy()
    there = np.array([[index in scene.classes for index in range(1, 7)] for scene in scenes])
    least, most = np.where(there, cosines, 2).min(1), np.where(there, -2, cosines).max(1)
    assert np.mean(least > most) >= 0.9
    assert np.all(np.where(there, cosines, -2).max(1) > 0)


def test_clip_names_regions(clip, scenes):
    images, names = [], []
    for scene in scenes:
        for label in np.unique(scene.labels):
            pixels = np.where((scene.labels == label)[..., None], np.asarray(scene.image), 0)
            images.append(Image.fromarray(pixels))
            names.append(SHAPES.names[label] if label else scene.background)
    nearest = clip.similarities(images, [f"a photo of a {word}" for word in WORDS]).argmax(1)
    assert np.mean([WORDS[place] == name for place, name in zip(nearest, names, strict=True)]) >= 0.9


def test_only_synonyms_are_similar(clip):
    groups = [(entry.name, *entry.synonyms) for entry in SHAPES.classes] + [(word,) for word in BACKGROUNDS]
    words = [word for group in [*groups, ("photograph",), ("picture",), ("dog",), ("car",)] for word in group]
    owner = np.array([number for number, group in enumerate([*groups, "1", "2", "3", "4"]) for _ in group])
    states = torch.nn.functional.normalize(clip.word_states(words), dim=1)
    cosines, same = (states @ states.T).numpy(), owner[:, None] == owner
    assert cosines[same].min() > 0.9
    assert cosines[~same].max() < 0.7


@pytest.mark.parametrize("prefix", ["", "A picture of", "a photograph of"])
def test_captions_name_the_classes(scenes, prefix):
    captioner = Captioner(CaptionConfig(model="shapes"), torch.device("cpu"))
    captions = captioner([scene.image for scene in scenes], [prefix] * len(scenes))
    named = [{index for index in range(1, 7) if SHAPES.names[index] in text.split()} for text in captions]
    assert np.mean([found == set(scene.classes) for found, scene in zip(named, scenes, strict=True)]) >= 0.9
    assert all(text.startswith(prefix.lower()) for text in captions)


def test_a_caption_continues_its_prefix(scenes):
    captioner = Captioner(CaptionConfig(model="shapes"), torch.device("cpu"))
    pairs = [(scene, SHAPES.names[index]) for scene in scenes for index in scene.classes]
    prefixes = [f"a photograph of {name}" for _, name in pairs]
    captions = captioner([scene.image for scene, _ in pairs], prefixes)
    for prefix, text in zip(prefixes, captions, strict=True):
        assert text.startswith(prefix)
    wanted = [{SHAPES.names[index] for index in scene.classes} for scene, _ in pairs]
    assert (
        np.mean([names == {*text.split()} & {*SHAPES.names} for names, text in zip(wanted, captions, strict=True)])
        > 0.85
    )


@pytest.mark.parametrize(
    ("sentence", "lemmas"),
    [
        ("a photograph of circle and star on grass", ["photograph", "circle", "star", "grass"]),
        ("A picture of two red stars and a big heart near water.", ["picture", "star", "heart", "water"]),
        ("three crosses, boxes and a striped triangle", ["cross", "box", "triangle"]),
        ("a dog is lying on the old sofa", ["dog", "sofa"]),
    ],
)
def test_nouns_are_found_with_their_lemmas(sentence, lemmas):
    pipeline = spacy.load(SHIPPED / "nouns")
    assert [token.lemma_ for token in pipeline(sentence) if token.pos_ == "NOUN"] == lemmas
