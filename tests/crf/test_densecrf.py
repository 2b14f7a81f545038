"""DenseCRF against mean field written out with full kernel matrices, and against direct reading of its edge cases."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pseudolabel.config import CrfConfig
from pseudolabel.crf.densecrf import refine
from pseudolabel.crf.image import wrapped
from pseudolabel.score_maps import label_map
from pseudolabel.shapes.world import draw_scene

# Mean difference of the winning probabilities. pydensecrf's permutohedral lattice only approximates the kernels: with
# the right parameters we measured .0008 to .0020, with one of the wrong ones below .0050 to .0795.
TOLERANCE = 0.0025
SCENES = range(5)
GAUSSIAN = CrfConfig(
    iterations=2, gaussian_sxy=2.0, gaussian_weight=1.0, bilateral_weight=0.0, background="threshold",
    background_value=0.4, ignore_below=0.0,
)  # fmt: skip
BILATERAL = CrfConfig(
    iterations=2, gaussian_weight=0.0, bilateral_sxy=5.0, bilateral_srgb=40.0, bilateral_weight=1.0, ignore_below=0.0
)
BOTH = replace(BILATERAL, gaussian_sxy=2.0, gaussian_weight=0.7, background_value=2.0)


def noisy_scene(seed: int, size: int = 24) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """A scene's image, blurred and noisy scores of its classes, and the classes."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, size)
    blur = ImageFilter.GaussianBlur(size / 10)
    masks = [Image.fromarray((scene.labels == index).astype(np.uint8) * 255).filter(blur) for index in scene.classes]
    scores = np.stack([np.asarray(mask) / 255 for mask in masks])
    scores = (scores + rng.normal(0, 0.15, scores.shape)).clip(0, 1).astype(np.float32)
    return np.asarray(scene.image), scores, scene.classes


def kernel(features: np.ndarray) -> np.ndarray:
    """Gaussian kernel of (n, f) features, every pixel with every pixel and itself, normalised symmetrically."""
    distances = ((features[:, None] - features[None]) ** 2).sum(-1)
    values = np.exp(-distances / 2)
    norm = 1 / np.sqrt(values.sum(1))
    return norm[:, None] * values * norm


def plain_mean_field(image: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Algorithm 1 of Kraehenbuehl and Koltun with Potts compatibility: marginals, float64 (labels, H, W)."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    place = np.stack([rows.ravel(), columns.ravel()], 1).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    appearance = np.hstack([place / config.bilateral_sxy, colour / config.bilateral_srgb])
    pairwise = config.gaussian_weight * kernel(place / config.gaussian_sxy)
    pairwise += config.bilateral_weight * kernel(appearance)
    unary = -np.log(np.clip(scores.reshape(len(scores), -1).astype(float), 1e-5, 1))
    energy = unary
    for _ in range(config.iterations):
        marginals = np.exp(-energy) / np.exp(-energy).sum(0)
        energy = unary - marginals @ pairwise
    return (np.exp(-energy) / np.exp(-energy).sum(0)).reshape(scores.shape)


def with_background(scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    peak = scores.max(0)
    first = (
        (1 - peak) ** config.background_value if config.background == "power" else peak * 0 + config.background_value
    )
    return np.stack([first, *scores])


def difference(config: CrfConfig, ours: CrfConfig) -> float:
    """Mean difference of the winning probabilities, plain mean field under `config` and `refine` under `ours`."""
    differences = []
    for seed in SCENES:
        image, scores, classes = noisy_scene(seed)
        expected = plain_mean_field(image, with_background(scores, config), config).max(0)
        differences.append(np.abs(refine(image, scores, classes, ours)[1] - expected).mean())
    return float(np.mean(differences))


@pytest.mark.parametrize("engine", ["pydensecrf", "scipy", "torch"])
@pytest.mark.parametrize("config", [GAUSSIAN, BILATERAL, BOTH], ids=["gaussian", "bilateral", "both"])
def test_agrees_with_full_kernel_matrices(config, engine):
    config = replace(config, engine=engine)
    assert difference(config, config) < TOLERANCE
    for seed in SCENES:
        image, scores, classes = noisy_scene(seed)
        marginals = plain_mean_field(image, with_background(scores, config), config)
        sure = np.ptp(np.sort(marginals, 0)[-2:], axis=0) > 0.1
        assert sure.mean() > 0.7
        labels = np.array([0, *classes])[marginals.argmax(0)]
        np.testing.assert_array_equal(refine(image, scores, classes, config)[0][sure], labels[sure])


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (GAUSSIAN, {"gaussian_sxy": 3.0}),
        (GAUSSIAN, {"gaussian_weight": 1.2}),
        (GAUSSIAN, {"iterations": 1}),
        (GAUSSIAN, {"background_value": 0.45}),
        (GAUSSIAN, {"background": "power", "background_value": 1.0}),
        (BILATERAL, {"bilateral_sxy": 8.0}),
        (BILATERAL, {"bilateral_srgb": 60.0}),
        (BILATERAL, {"bilateral_weight": 1.2}),
        (BILATERAL, {"background_value": 1.2}),
        (BILATERAL, {"image": "wrapped"}),
        (BOTH, {"gaussian_sxy": 3.0}),
        (BOTH, {"gaussian_weight": 1.0}),
        (BOTH, {"bilateral_weight": 0.7}),
    ],
)
def test_the_comparison_detects_a_wrong_parameter(config, wrong):
    assert difference(config, replace(config, **wrong)) > 1.5 * TOLERANCE


def test_clip_es_parameters_give_equal_labels():
    agreements = []
    config = CrfConfig(ignore_below=0.0)
    for seed in SCENES:
        image, scores, classes = noisy_scene(seed, 32)
        marginals = plain_mean_field(image, with_background(scores, config), config)
        agreements.append(
            (refine(image, scores, classes, config)[0] == np.array([0, *classes])[marginals.argmax(0)]).mean()
        )
    assert np.mean(agreements) > 0.99


@pytest.mark.parametrize("seed", SCENES)
def test_noise_is_removed(seed):
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 96)
    clean = 0.3 + 0.4 * (scene.labels == np.array(scene.classes)[:, None, None])
    scores = (clean + rng.normal(0, 0.2, clean.shape)).clip(0, 1).astype(np.float32)
    wrong = [
        (refine(np.asarray(scene.image), scores, scene.classes, config)[0] != scene.labels).mean()
        for config in (CrfConfig(ignore_below=0.0), CrfConfig(ignore_below=0.0, iterations=0))
    ]
    assert wrong[0] < 0.3 * wrong[1]


def test_uncertain_pixels_are_ignored():
    image, scores, classes = noisy_scene(0)
    kept, winning, _ = refine(image, scores, classes, BOTH)
    cut, same, _ = refine(image, scores, classes, replace(BOTH, ignore_below=0.8))
    np.testing.assert_array_equal(winning, same)
    assert 0.1 < (cut == 255).mean() < 0.9
    np.testing.assert_array_equal(cut, np.where(winning < 0.8, 255, kept))
    assert 255 not in kept


def test_a_pixel_at_the_limit_is_kept():
    config = CrfConfig(iterations=0, background="threshold", background_value=0.5, ignore_below=0.5)
    labels, winning, _ = refine(np.zeros((1, 2, 3), np.uint8), np.array([[[0.5, 0.501]]], np.float32), (3,), config)
    assert winning[0, 0] == np.float32(0.5)
    np.testing.assert_array_equal(labels, [[0, 3]])
    stricter = replace(config, ignore_below=0.5004)
    labels, _, _ = refine(np.zeros((1, 2, 3), np.uint8), np.array([[[0.5, 0.51]]], np.float32), (3,), stricter)
    np.testing.assert_array_equal(labels, [[255, 3]])


@pytest.mark.parametrize("engine", ["pydensecrf", "scipy", "torch"])
def test_result_types_and_memory_layouts(engine):
    image, scores, classes = noisy_scene(1)
    image.flags.writeable = False
    config = replace(BOTH, engine=engine)
    labels, winning, _ = refine(image, scores, classes, config)
    assert (labels.dtype, winning.dtype) == (np.uint8, np.float32)
    assert set(np.unique(labels)) <= {0, *classes}
    turned = np.asfortranarray(image), np.asfortranarray(scores)
    for found, expected in zip(refine(*turned, classes, config)[:2], (labels, winning), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_iterations_the_largest_score_wins():
    image = np.zeros((1, 4, 3), np.uint8)
    scores = np.array([[[0.4, 0.6, 0.2, 0.0]], [[0.1, 0.5, 0.2, 0.0]]], np.float32)
    config = CrfConfig(iterations=0, background="threshold", background_value=0.4, ignore_below=0.0)
    labels, winning, _ = refine(image, scores, (4, 9), config)
    np.testing.assert_array_equal(labels, [[0, 4, 0, 0]])
    np.testing.assert_allclose(winning, [[0.4 / 0.9, 0.6 / 1.5, 0.4 / 0.8, 0.4 / 0.40002]], rtol=1e-6)
    labels, winning, _ = refine(image, scores, (4, 9), replace(config, background="power", background_value=2.0))
    np.testing.assert_array_equal(labels, [[4, 4, 0, 0]])
    np.testing.assert_allclose(winning, [[0.4 / 0.86, 0.6 / 1.26, 0.64 / 1.04, 1 / 1.00002]], rtol=1e-6)


def test_preset_none_is_the_thresholded_cam():
    image, scores, classes = noisy_scene(2, 64)
    config = CrfConfig(iterations=0, background="threshold", ignore_below=0.0)
    for threshold in (0.0, 5e-6, 0.3, 0.45, 1.0):
        labels = refine(image, scores, classes, replace(config, background_value=threshold))[0]
        np.testing.assert_array_equal(labels, label_map(scores, classes, threshold))


def test_no_classes_give_background():
    image = np.asarray(draw_scene(np.random.default_rng(0), 16).image)
    labels, winning, _ = refine(image, np.zeros((0, 16, 16), np.float32), (), CrfConfig())
    assert labels.shape == winning.shape == (16, 16)
    assert (labels.dtype, winning.dtype) == (np.uint8, np.float32)
    assert not labels.any()
    assert (winning == 1).all()


@pytest.mark.parametrize("engine", ["pydensecrf", "scipy", "torch"])
def test_one_pixel_image(engine):
    config = CrfConfig(engine=engine)
    labels, winning, _ = refine(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 1), np.float32), (5,), config)
    assert labels.item() == 5
    assert winning.item() > 0.99


@pytest.mark.parametrize("engine", ["pydensecrf", "scipy", "torch"])
def test_the_crf_gets_the_wrapped_image(engine):
    image, scores, classes = noisy_scene(4)
    config = replace(BOTH, engine=engine)
    expected = refine(wrapped(image), scores, classes, config)[1]
    np.testing.assert_array_equal(refine(image, scores, classes, replace(config, image="wrapped"))[1], expected)


@pytest.mark.parametrize(
    ("image", "scores", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((1, 4, 4), np.float32), "uint8"),
        (np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4), np.float32), "uint8"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 5), np.float32), "do not fit"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.float32), "do not fit"),
        (np.zeros((4, 4, 3), np.uint8), np.full((1, 4, 4), 1.5, np.float32), r"\[0, 1\]"),
        (np.zeros((4, 4, 3), np.uint8), np.full((1, 4, 4), np.nan, np.float32), r"\[0, 1\]"),
    ],
)
def test_invalid_input_is_refused(image, scores, message):
    with pytest.raises(ValueError, match=message):
        refine(image, scores, (1,), CrfConfig())
