"""The ELBO baseline on samples, against tests/plain/elbo.py."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import ElboConfig
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.evaluation.threshold_sweep import ThresholdSweep
from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import read_tar
from pseudolabel.methods.elbo_predictor import ElboPredictor
from pseudolabel.records import Sample
from pseudolabel.score_maps import at_image_size
from pseudolabel.shapes.world import draw_scene
from pseudolabel.shards.sample import decode_cams
from pseudolabel.stages.label import write_labels
from pseudolabel.vocabulary import load_vocabulary
from tests.plain import elbo as plain
from tests.plain.architectures import context, loaded

CAPTIONS = {("image_1", "star"): "a photograph of star on grass", ("image_1", "heart"): "two shapes"}
TUNED = ElboConfig(timesteps=[900, 925], temperature=0.0025, samples=8)


def samples():
    images = [draw_scene(np.random.default_rng(number)).image for number in range(4)]
    classes = [(1,), (4, 6), (), (2, 3, 5)]
    wide = images[3].resize((150, 110))
    return [
        Sample(f"image_{number}", image, own)
        for number, (image, own) in enumerate(zip([*images[:3], wide], classes, strict=True))
    ]


def label(name="tiny", captions=None, config=ElboConfig(samples=3), **work):  # noqa: B008 - frozen
    predictor = ElboPredictor(context(name, load_vocabulary("shapes"), captions, **work), config)
    return [maps for _, maps in predictor(samples())]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny_v2", "shapes", "tiny_xl"])
def test_maps_agree_with_the_equation(name):
    model, config = loaded(name), ElboConfig(samples=3, temperature=0.02)
    prediction = "v_prediction" if name == "tiny_v2" else "epsilon"
    prompts = ["", "a photograph of star on grass", "a photograph of heart, two shapes"]
    found, sample = label(name, CAPTIONS, config, batch=4)[1], samples()[1]
    noise = draw_noise(0, "noise", "image_1", 3, model.latent_shape)
    likelihoods = plain.log_likelihoods(model, prediction, config, sample.image, prompts, noise)
    for found_map, scores in zip(found.maps, plain.scores(config, likelihoods), strict=True):
        span = scores.max() - scores.min()
        assert span > 1e-4
        expected = (scores - scores.min()) / span
        np.testing.assert_allclose(found_map.astype(np.float32), expected, atol=2e-3)


def test_maps_of_every_sample():
    found = label(batch=5)
    assert [maps.key for maps in found] == [f"image_{number}" for number in range(4)]
    assert [maps.maps.shape for maps in found] == [(count, 16, 16) for count in (1, 2, 0, 3)]
    assert {maps.maps.dtype for maps in found} == {np.dtype(np.float16)}
    assert found[3].size == (110, 150)
    assert found[3].classes == (2, 3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 64])
def test_the_batch_changes_nothing(batch):
    for one, other in zip(label(batch=batch), label(batch=4), strict=True):
        np.testing.assert_allclose(one.maps.astype(np.float32), other.maps.astype(np.float32), atol=2e-3)


@pytest.mark.slow
def test_seed_and_number_of_draws_matter():
    maps = label()[0].maps
    assert not np.allclose(maps, label(seed=1)[0].maps, atol=0.05)
    assert not np.allclose(maps, label(config=ElboConfig(samples=4))[0].maps, atol=0.05)


def test_a_draw_does_not_depend_on_later_ones():
    """So the mean over the first draws of a long run is the result of a short one."""
    shape = loaded("tiny").latent_shape
    assert np.array_equal(draw_noise(0, "noise", "a", 50, shape)[:3], draw_noise(0, "noise", "a", 3, shape))


@pytest.mark.slow
def test_maps_find_shapes_and_improve_with_draws():
    scenes = [draw_scene(np.random.default_rng([5, number])) for number in range(6)]
    drawn = [Sample(f"scene_{number}", scene.image, scene.classes) for number, scene in enumerate(scenes)]

    def oracle(draws):
        predictor = ElboPredictor(context("shapes", load_vocabulary("shapes")), replace(TUNED, samples=draws))
        sweep = ThresholdSweep.empty(6)
        for scene, (_, maps) in zip(scenes, predictor(drawn), strict=True):
            sweep.add(scene.labels, at_image_size(maps.maps, maps.size), maps.classes)
        return sweep.oracle()[0]

    few, many = oracle(1), oracle(8)
    assert many > few + 0.05
    assert many > 0.5


def test_the_stage_writes_its_maps(experiment, one_rank):
    experiment = replace(experiment, method="elbo", elbo=replace(TUNED, samples=2))
    summary = write_labels(experiment, one_rank)
    assert (summary.samples, summary.failed) == (5, 0)
    cams = Folder(experiment.out) / "cams"
    with cams.open("cams-000000.tar") as file:
        key, members = next(iter(read_tar(file)))
    found = decode_cams(key, members)
    assert found.scores.maps.shape == (len(found.scores.classes), 32, 32)
    assert Image.open(experiment.source.path + f"/JPEGImages/{key}.jpg").size == found.scores.size[::-1]
