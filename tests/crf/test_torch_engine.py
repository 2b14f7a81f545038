"""Mean field by scipy and by torch against pydensecrf, on random and on real images, alone and together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pseudolabel.config import CrfConfig
from pseudolabel.crf.pydensecrf_engine import mean_field
from pseudolabel.crf.scipy_engine import ScipyMeanField
from pseudolabel.crf.torch_engine import TorchMeanField
from pseudolabel.experiment_file import open_experiment

CPU = torch.device("cpu")
ENGINES = ["scipy", "torch on cpu", *["torch on cuda"] * torch.cuda.is_available()]
CLIP_ES = CrfConfig()
SHAPES = open_experiment("shapes").crf
SMALL = CrfConfig(iterations=3, bilateral_sxy=5.0, bilateral_srgb=40.0)


def open_engine(engine: str, config: CrfConfig) -> ScipyMeanField | TorchMeanField:
    name, _, device = engine.partition(" on ")
    return ScipyMeanField(config) if name == "scipy" else TorchMeanField(config, torch.device(device))


def alone(config: CrfConfig, engine: str, image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The marginals of one image."""
    [marginals] = together(open_engine(engine, config), [image], [scores])
    return marginals.numpy()


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def draw(seed, height, width, labels):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return image, rng.random((labels, height, width), np.float32)


def together(crf, images, scores):
    device = getattr(crf, "device", CPU)
    tensors = [[torch.from_numpy(np.array(array)).to(device) for array in arrays] for arrays in (images, scores)]
    return [marginals.cpu() for marginals in crf(*tensors)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[:2])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    labels=st.integers(1, 21),
    seed=st.integers(0, 10**6),
    config=st.sampled_from([CLIP_ES, SHAPES, SMALL]),
)
def test_random_images_of_any_size(engine, height, width, labels, seed, config):
    image, scores = draw(seed, height, width, labels)
    found = alone(config, engine, image, scores)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_field(image, scores, config), atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 57), (57, 1), (24, 24)])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("config", [CLIP_ES, SHAPES], ids=["clip-es", "shapes"])
def test_constant_images(size, value, config, engine):
    _, scores = draw(1, *size, 3)
    image = np.full((*size, 3), value, np.uint8)
    np.testing.assert_allclose(alone(config, engine, image, scores), mean_field(image, scores, config), atol=1e-4)


def test_one_label_wins_everywhere(engine):
    image, scores = draw(2, 8, 9, 1)
    assert (alone(SMALL, engine, image, scores) == 1).all()


def test_zero_scores_are_the_smallest_probability(engine):
    image, _ = draw(3, 12, 12, 1)
    scores = np.zeros((2, 12, 12), np.float32)
    scores[0, :, :6] = 1
    np.testing.assert_allclose(alone(SMALL, engine, image, scores), mean_field(image, scores, SMALL), atol=1e-4)


@pytest.mark.parametrize("labels", [2, 5])
def test_batches_equal_single_images(labels, engine):
    """To the byte, whatever their sizes; the lattice of positions is built once per size."""
    sizes = [(12, 17), (9, 9), (12, 17), (1, 5), (12, 17)]
    images, scores = zip(*(draw(n, *size, labels) for n, size in enumerate(sizes)), strict=True)
    crf = open_engine(engine, SMALL)
    for image, own, found in zip(images, scores, together(crf, images, scores), strict=True):
        np.testing.assert_array_equal(found, alone(SMALL, engine, image, own))
    assert crf._kept.cache_info().misses == 3


def test_the_same_bytes_each_time(engine):
    image, scores = draw(5, 30, 31, 4)
    first = alone(SHAPES, engine, image, scores)
    for _ in range(3):
        np.testing.assert_array_equal(alone(SHAPES, engine, image, scores), first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 2},
        {"gaussian_sxy": 1.1},
        {"gaussian_weight": 2.5},
        {"bilateral_sxy": 6.0},
        {"bilateral_srgb": 35.0},
        {"bilateral_weight": 4.5},
    ],
)
def test_every_parameter_matters(wrong, engine):
    image, scores = draw(6, 25, 25, 3)
    expected = mean_field(image, scores, replace(SMALL, **wrong))
    found = alone(replace(SMALL, **wrong), engine, image, scores)
    other = alone(SMALL, engine, image, scores)
    assert np.abs(found - expected).max() < 0.1 * np.abs(other - expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("config", [CLIP_ES, SHAPES], ids=["clip-es", "shapes"])
@pytest.mark.parametrize(("first", "labels"), [(0, 3), (40, 21)])
def test_real_images(voc_sample: Path, config: CrfConfig, first: int, labels: int, engine: str):
    """At their own size, with blurred and noisy scores of smooth shapes: the labels are equal."""
    path = sorted((voc_sample / "JPEGImages").glob("*.jpg"))[first]
    image = np.array(Image.open(path).convert("RGB"))
    coarse = torch.from_numpy(np.random.default_rng(first).random((1, labels, 12, 12), np.float32))
    scores = F.interpolate(coarse, image.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    expected, found = mean_field(image, scores, config), alone(config, engine, image, scores)
    assert np.abs(found - expected).max() < 1e-3
    assert (found.argmax(0) == expected.argmax(0)).mean() >= 0.999
    assert (found.argmax(0) != scores.argmax(0)).mean() > 0.01
