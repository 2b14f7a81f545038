"""FreeSeg-Diff on samples, against tests/plain/freesegdiff.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from pseudolabel.config import CrfConfig, FreeSegDiffConfig
from pseudolabel.diffusion.noise import draw_noise, generator_of
from pseudolabel.errors import ModelError, SettingError
from pseudolabel.methods.freesegdiff_predictor import FreeSegDiffPredictor
from pseudolabel.methods.kmeans import plus_plus
from pseudolabel.papers.freesegdiff import RELEASED
from pseudolabel.records import Sample
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain import freesegdiff as plain
from tests.plain.architectures import context, loaded
from tests.plain.clip import tiny_clip

VOCABULARY = load_vocabulary("shapes")
BACKGROUND_WORDS = ["grass", "sand", "water", "stone"]
CRF = CrfConfig(iterations=3, bilateral_sxy=10, bilateral_srgb=10)
CHANGES = [
    {},
    {"refinement": "none"},
    {"refinement": "per_cluster"},
    {"naming": "released"},
    {"enlarge": "nearest", "refinement": "none"},
    {"vae": "sample", "refinement": "none"},
    {"background_words": False, "refinement": "none"},
    {"noise": True, "timestep": 100, "refinement": "none"},
    {"template": "one {} of many", "refinement": "none"},
    RELEASED,
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The seed is one with which regions get several names, some of them the background's."""
    return tiny_clip(tmp_path_factory.mktemp("clip"), seed=3)


def samples():
    scenes = [draw_scene(np.random.default_rng(number)) for number in range(4)]
    images = [scene.image for scene in scenes]
    images[1] = images[1].resize((150, 110))
    classes = [(1, 2, 3, 4, 5, 6), (1, 3, 5), (), (2, 4, 6)]
    return [Sample(f"image_{number}", *pair) for number, pair in enumerate(zip(images, classes, strict=True))]


def configure(clip, name="tiny", **change):
    strides = [8] if name == "shapes" else [32]
    config = FreeSegDiffConfig(clip=str(clip), strides=strides, side=16, clusters=5, restarts=2, crf=CRF)
    return replace(config, **change)


def label(config, name="tiny", vocabulary=VOCABULARY, **work):
    return [found.labels for _, found in FreeSegDiffPredictor(context(name, vocabulary, **work), config)(samples())]


def label_plainly(config, name, sample):
    model, path = loaded(name), config.clip
    noise = draw_noise(0, "noise", sample.key, 1, model.latent_shape)[0] if config.noise else None
    drawn = draw_noise(0, "posterior", sample.key, 1, model.latent_shape)[0] if config.vae == "sample" else None
    points = plain.points(model, config, sample.image, noise, drawn)
    centred = torch.from_numpy(points - points.mean(0)).float()
    generator = generator_of(0, "clusters", sample.key)
    centres = plus_plus(centred[None], config.clusters, [generator], config.restarts)[0]
    starts = [torch.cdist(start, centred).argmin(1).tolist() for start in centres]
    clusters = plain.cluster(points, starts).reshape(config.side, config.side)
    words = [entry.name for entry in VOCABULARY.classes] + BACKGROUND_WORDS * config.background_words
    tools = CLIPModel.from_pretrained(path).eval(), CLIPProcessor.from_pretrained(path)
    return plain.segment(config, sample.image, clusters, *tools, words, len(VOCABULARY), sample.classes)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("name", ["tiny", "shapes", "tiny_xl"])
def test_masks_equal_a_plain_version(clip, name, change):
    config = configure(clip, name, **change)
    named = set()
    for sample, found in zip(samples(), label(config, name), strict=True):
        assert found.dtype == np.uint8
        assert found.shape == (sample.image.height, sample.image.width)
        assert set(np.unique(found)) <= {0, *sample.classes}
        if sample.classes:
            assert np.array_equal(found, label_plainly(config, name, sample))
            named |= set(np.unique(found))
    assert len(named) > 1, "nothing was named"


@pytest.mark.slow
def test_every_option_matters(clip):
    usual = label(configure(clip))
    for change in CHANGES[1:]:
        other = label(configure(clip, **change))
        assert any((one != two).any() for one, two in zip(usual, other, strict=True)), change


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_changes_nothing(clip, batch):
    for one, other in zip(label(configure(clip), batch=batch), label(configure(clip), batch=16), strict=True):
        assert np.array_equal(one, other)


def test_worker_processes_change_nothing(clip):
    for one, other in zip(label(configure(clip), workers=2), label(configure(clip)), strict=True):
        assert np.array_equal(one, other)


def test_the_seed_matters(clip):
    """With one start and many clusters; the best of many starts is often the same."""
    config = configure(clip, restarts=1, clusters=12, refinement="none")
    assert any((one != other).any() for one, other in zip(label(config), label(config, seed=1), strict=True))


def test_images_without_candidates_run_no_model(clip):
    predictor = FreeSegDiffPredictor(context("tiny", VOCABULARY), configure(clip))
    bare = [Sample("a", Image.new("RGB", (30, 20)), ())]
    begun = []
    handle = loaded("tiny").unet.register_forward_pre_hook(lambda *_: begun.append(1))
    ((_, found),) = predictor(bare)
    handle.remove()
    assert found.labels.shape == (20, 30)
    assert not found.labels.any()
    assert not begun


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certainty": 1.0}, "`freesegdiff.certainty` 1.0"),
        ({"template": "a photo"}, "`freesegdiff.template` 'a photo'"),
        ({"strides": [4]}, "freesegdiff.strides"),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(clip, change, message):
    with pytest.raises(SettingError, match=message):
        label(configure(clip, **change))


def test_a_missing_clip_is_named():
    with pytest.raises(ModelError, match=r"/no/such/clip.*`freesegdiff\.clip`|`freesegdiff\.clip`.*/no/such/clip"):
        label(configure("/no/such/clip"))
