"""DenseCRF on hard labels, against pydensecrf's own way with them."""

from dataclasses import replace

import numpy as np
import pytest
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels

from pseudolabel.config import CrfConfig, FreeSegDiffConfig
from pseudolabel.crf.regions import refine_singly, refine_together
from pseudolabel.shapes.world import draw_scene

CRFS = [FreeSegDiffConfig().crf, CrfConfig(iterations=3, bilateral_sxy=10, bilateral_srgb=10)]
CERTAINTY = 0.7


def scene():
    return draw_scene(np.random.default_rng(0))


def blocks(labels, side=16):
    """Labels as K-means on small maps has them: of squares."""
    return np.repeat(np.repeat(labels[side // 2 :: side, side // 2 :: side], side, 0), side, 1)


def plain(image, labels, crf):
    values, marginals = plain_marginals(image, labels, crf)
    return values[np.argmax(marginals, 0)]


def plain_marginals(image, labels, crf):
    values, numbered = np.unique(labels, return_inverse=True)
    height, width = labels.shape
    field = DenseCRF2D(width, height, len(values))
    field.setUnaryEnergy(unary_from_labels(numbered.ravel(), len(values), CERTAINTY, zero_unsure=False))
    field.addPairwiseGaussian(crf.gaussian_sxy, crf.gaussian_weight)
    field.addPairwiseBilateral(crf.bilateral_sxy, crf.bilateral_srgb, image, crf.bilateral_weight)
    return values, np.array(field.inference(crf.iterations)).reshape(-1, height, width)


@pytest.mark.parametrize("crf", CRFS, ids=["default", "narrow"])
def test_the_torch_engine_gives_the_same_labels(crf):
    drawn = scene()
    image, rough = np.array(drawn.image), blocks(drawn.labels)
    found = refine_together(image, rough, CERTAINTY, replace(crf, engine="torch"))[0]
    assert (found == refine_together(image, rough, CERTAINTY, crf)[0]).mean() >= 0.999


@pytest.mark.parametrize("crf", CRFS, ids=["default", "narrow"])
def test_refine_together_is_one_crf_over_all_labels(crf):
    drawn = scene()
    image, rough = np.array(drawn.image), blocks(drawn.labels)
    found, confidence = refine_together(image, rough, CERTAINTY, crf)
    assert found.dtype == np.uint8
    assert np.array_equal(found, plain(image, rough, crf))
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, plain_marginals(image, rough, crf)[1].max(0), atol=1e-5)
    assert not np.array_equal(found, rough)


@pytest.mark.parametrize("crf", CRFS, ids=["default", "narrow"])
def test_refine_singly_is_one_crf_per_region(crf):
    drawn = scene()
    image, regions = np.array(drawn.image), blocks(drawn.objects) + 3
    numbers = np.unique(regions)
    names = [0, *range(7, 6 + len(numbers))]
    found, confidence = refine_singly(image, regions, names, CERTAINTY, crf)
    expected, inside = np.zeros_like(found), []
    for number, name in zip(numbers[1:], names[1:], strict=True):
        expected[plain(image, (regions == number).astype(np.uint8), crf) == 1] = name
        inside.append(plain_marginals(image, (regions == number).astype(np.uint8), crf)[1][1])
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    largest = np.max(inside, 0)  # no two regions claim a pixel here
    np.testing.assert_allclose(confidence, np.where(expected > 0, largest, 1 - largest), atol=1e-5)


def test_the_first_region_wins_a_contested_pixel():
    """With a certainty below one half, each region claims all but itself."""
    image = np.array(scene().image)[:6, :9]
    regions = np.repeat(np.repeat([[0, 1, 2]], 6, 0), 3, 1)
    crf = CrfConfig(iterations=1, gaussian_weight=0, bilateral_weight=0)
    found = refine_singly(image, regions, [7, 8, 9], 0.3, crf)[0]
    assert np.array_equal(found, np.array([8, 7, 7], np.uint8)[regions])
    assert np.array_equal(refine_singly(image, regions, [0, 8, 9], 0.3, crf)[0] == 8, regions != 1)


def test_regions_follow_edges():
    """The narrow kernels bring blocks back to the shapes they were made from."""
    drawn = scene()
    image, rough = np.array(drawn.image), blocks(drawn.labels, 8)
    fine = refine_together(image, rough, CERTAINTY, CRFS[1])[0]
    assert (fine == drawn.labels).mean() > (rough == drawn.labels).mean() + 0.01


def test_a_single_label_is_unchanged():
    image = np.array(scene().image)
    labels = np.full(image.shape[:2], 4, np.uint8)
    assert np.array_equal(refine_together(image, labels, CERTAINTY, CRFS[0])[0], labels)
    assert np.array_equal(refine_singly(image, labels, [9], CERTAINTY, CRFS[0])[0], np.full_like(labels, 9))
    assert not refine_singly(image, labels, [0], CERTAINTY, CRFS[0])[0].any()
