"""What scenes of each difficulty hold."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pseudolabel.shapes.difficulty import DIFFICULTIES, EASY, Difficulty
from pseudolabel.shapes.world import SHAPE_CLASSES, SIZE, VISIBLE_SHARE, Scene, draw_scene

STANDARD = DIFFICULTIES["standard"]


def scenes(difficulty: Difficulty, count: int = 40, size: int = SIZE) -> list[Scene]:
    return [draw_scene(np.random.default_rng([3, number]), size, difficulty) for number in range(count)]


def touch(scene: Scene) -> bool:
    """Whether two objects lie within two pixels of each other."""
    grown = [
        np.asarray(Image.fromarray((scene.objects == number).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(5)))
        for number in range(1, int(scene.objects.max()) + 1)
    ]
    return bool((np.sum(grown, 0) > 255).any()) if grown else False


@pytest.mark.parametrize("difficulty", DIFFICULTIES.values(), ids=list(DIFFICULTIES))
def test_labels_name_what_is_drawn(difficulty):
    for scene in scenes(difficulty):
        assert scene.image.size == scene.labels.shape == (SIZE, SIZE)
        assert set(np.unique(scene.labels)) - {0} == set(scene.classes)
        assert 1 <= len(scene.classes) <= 3
        for number in range(1, int(scene.objects.max()) + 1):
            assert len(np.unique(scene.labels[scene.objects == number])) == 1


def test_equal_seeds_draw_equal_scenes():
    for one, other in zip(scenes(STANDARD, 3), scenes(STANDARD, 3), strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        np.testing.assert_array_equal(one.labels, other.labels)


def test_blobs_are_unlabelled():
    """With a colour range that objects do not have, a blob shows as saturated background."""
    plain, blobs = replace(STANDARD, ground_tint=0.0), 0
    for scene in scenes(plain):
        pixels = np.asarray(scene.image.filter(ImageFilter.GaussianBlur(3))).astype(int)
        saturation = (pixels.max(-1) - pixels.min(-1)) / pixels.max(-1)
        far = np.asarray(Image.fromarray((scene.labels > 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(15))) == 0
        blobs += bool(((saturation > 0.45) & far).any())
    assert 5 < blobs < 40
    assert STANDARD.blobs > EASY.blobs == 0


def test_objects_touch_more_often_where_they_are_placed_side_by_side():
    apart, beside = (sum(map(touch, scenes(replace(STANDARD, touching=share), 80))) for share in (0.0, 1.0))
    assert beside > 1.5 * apart
    assert STANDARD.touching > EASY.touching == 0


def test_colours_are_duller_and_less_certain():
    hues = sorted(shape.hue for shape in SHAPE_CLASSES)
    gap = min(b - a for a, b in zip(hues, [*hues[1:], hues[0] + 1], strict=True))
    assert EASY.hue_jitter < STANDARD.hue_jitter < gap / 2  # no colour belongs to two classes
    assert STANDARD.saturation[0] < EASY.saturation[0]
    assert STANDARD.brightness[0] < EASY.brightness[0]


def test_every_object_stays_half_visible():
    """Compared with the same objects alone: an object is drawn complete before others cover it."""
    for scene in scenes(replace(STANDARD, touching=1.0), 20):
        areas = np.bincount(scene.objects.ravel(), minlength=4)[1:]
        assert (areas[: int(scene.objects.max())] > 0).all()
    assert VISIBLE_SHARE == 0.5


def test_scenes_scale():
    small = scenes(STANDARD, 3, 64)
    assert [scene.image.size for scene in small] == [(64, 64)] * 3
