"""What the predictors hold of large images: their views, and one full-size image at a time."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import CrfConfig, DiffSegConfig, DiffSegmenterConfig, ElboConfig, FreeSegDiffConfig
from pseudolabel.errors import SampleError
from pseudolabel.methods.registry import Predictor, find_method
from pseudolabel.records import EncodedImage, LabelMap, Sample
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import context

SHAPES = load_vocabulary("shapes")
FREESEGDIFF = FreeSegDiffConfig(
    clip="shapes", strides=[32], side=16, clusters=3, restarts=1, crf=CrfConfig(iterations=1)
)
SETTINGS: dict[str, Any] = {
    "diffsegmenter": DiffSegmenterConfig(timesteps=[50]),
    "elbo": ElboConfig(samples=2),
    "diffseg": DiffSegConfig(anchors=4),
    "freesegdiff": FREESEGDIFF,
}
CASES = {
    **SETTINGS,
    "diffseg, crop": replace(SETTINGS["diffseg"], fit="crop"),
    "freesegdiff, another backbone": replace(FREESEGDIFF, backbone="shapes", side=8),
}


def build(case: str, batch: int = 2, workers: int = 1) -> Any:
    return find_method(case.split(",")[0]).build(context("tiny", SHAPES, batch=batch, workers=workers), CASES[case])


def images(count: int = 3) -> list[Image.Image]:
    """Wide enough for a crop to leave something out."""
    return [draw_scene(np.random.default_rng(number)).image.resize((150, 110)) for number in range(count)]


def arrays(predictor: Predictor, samples: list[Sample]) -> list[np.ndarray]:
    found = []
    for _, outcome in predictor(samples):
        assert not isinstance(outcome, SampleError)
        found.append(outcome.labels if isinstance(outcome, LabelMap) else outcome.maps)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_views_replace_images(case: str) -> None:
    """A view gives the bits that the image gives; only naming regions needs the image itself."""
    predictor, decoded = build(case), []

    def encoded(image: Image.Image) -> EncodedImage:
        def decode() -> Image.Image:
            decoded.append(1)
            return image

        return EncodedImage((110, 150), decode)

    plain = [Sample(f"image_{number}", image, (1, 4)) for number, image in enumerate(images())]
    viewed = [replace(one, content=encoded(one.image), view=predictor.view(one.image)) for one in plain]
    for one, other in zip(arrays(predictor, plain), arrays(predictor, viewed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(decoded) == (3 if case.startswith("freesegdiff") else 0)


@pytest.mark.parametrize("case", SETTINGS)
def test_a_view_is_small(case: str) -> None:
    view = build(case).view(Image.new("RGB", (2000, 1500)))
    assert np.asarray(view).nbytes < 10**6


@pytest.mark.slow
@pytest.mark.parametrize(("case", "workers"), [*((case, 1) for case in SETTINGS), ("freesegdiff", 2)])
def test_samples_are_read_when_needed(case: str, workers: int) -> None:
    """The number of samples in memory does not grow with the unit."""
    image, taken = images(1)[0], 0

    def stream() -> Iterator[Sample]:
        nonlocal taken
        for number in range(300):
            taken += 1
            yield Sample(f"image_{number}", image, (1,))

    results = build(case, batch=4, workers=workers)(stream())
    assert next(results)[0].key == "image_0"
    assert taken < 150
    results.close()


def test_full_size_images_are_released() -> None:
    """FreeSeg-Diff decodes an image to name its regions, and drops it before the next ones."""
    alive: list[weakref.ref[Image.Image]] = []

    def decode() -> Image.Image:
        assert sum(ref() is not None for ref in alive) <= 1
        image = images(1)[0]
        alive.append(weakref.ref(image))
        return image

    predictor = build("freesegdiff")
    view = predictor.view(images(1)[0])
    samples = [Sample(f"image_{number}", EncodedImage((110, 150), decode), (1, 2), view) for number in range(6)]
    assert len(arrays(predictor, samples)) == len(alive) == 6
