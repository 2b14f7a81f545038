"""The fast path against FreeSeg-Diff written plainly (tests/plain/freesegdiff.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import FreeSegDiffConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import SettingError
from pseudolabel.methods.freesegdiff import (
    FeatureClusters,
    concatenate,
    cut_out,
    enlarge_clusters,
    name_regions,
    share_regions,
)
from pseudolabel.methods.kmeans import plus_plus
from pseudolabel.shapes.world import draw_scene
from tests.plain import freesegdiff as plain
from tests.plain.architectures import loaded

pytestmark = pytest.mark.slow

STRIDES = {"tiny": [32], "tiny_v2": [32], "shapes": [8], "tiny_xl": [32]}
CONFIG = FreeSegDiffConfig(side=16, restarts=3)
ENLARGE = ("nearest_exact", "nearest")
CHANGES = [
    {},
    {"features": "resblock"},
    {"features": "attention"},
    {"features": "both"},
    {"strides": [16, 32, 64]},
    {"timestep": 50, "noise": True},
    {"side": 12, "clusters": 6},
]


def scene(number=0):
    return draw_scene(np.random.default_rng(number)).image


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generators():
    return [torch.Generator().manual_seed(number) for number in range(2)]


def chosen(name, change):
    config = replace(CONFIG, **({"strides": STRIDES[name]} | change))
    if name == "tiny_xl":  # which has no queries at 64
        return replace(config, strides=[stride for stride in config.strides if stride < 64])
    return config


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("name", STRIDES)
def test_regions_equal_those_of_all_channels(name, change):
    model, config = loaded(name), chosen(name, change)
    noise = normal(2, *model.latent_shape) if config.noise else None
    images = [scene(0), scene(1)]
    latents = model.encode(torch.stack([model.pixels(image) for image in images]))
    found = FeatureClusters(model, config).regions(latents, noise, generators())
    assert found.shape == (2, config.side, config.side)
    for row, (image, generator) in enumerate(zip(images, generators(), strict=True)):
        points = plain.points(model, config, image, None if noise is None else noise[row])
        labels = plain.cluster(points, starts(points, config, generator))
        assert len(np.unique(labels)) == config.clusters
        assert np.array_equal(found[row].flatten(), labels)


def starts(points, config, generator):
    """The numbers of the points at which K-means is to start: (restarts, clusters)."""
    centred = torch.from_numpy(points - points.mean(0)).float()
    centres = plus_plus(centred[None], config.clusters, [generator], config.restarts)[0]
    return [torch.cdist(start, centred).argmin(1).tolist() for start in centres]


@pytest.mark.parametrize("sides", [[4], [16], [4, 8, 16]], ids=str)
def test_distances_equal_those_of_all_channels(sides):
    """Many channels with a large mean, as features have them: 300 of each map become at most 64 in all."""
    features = [3 + normal(2, 150, side, side, seed=seed) for side in sides for seed in range(2)]
    found = concatenate(features, 8)
    assert found.shape == (2, 64, 16 if sides == [4] else 64)
    full = [torch.nn.functional.interpolate(feature.double(), (8, 8), mode="bilinear") for feature in features]
    expected = torch.cat(full, 1).flatten(2).mT
    found = found.double()
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(expected, expected), atol=1e-3, rtol=1e-4)


def test_regions_do_not_depend_on_the_batch():
    model, config = loaded("shapes"), chosen("shapes", {})
    latents = model.encode(torch.stack([model.pixels(scene(number)) for number in range(2)]))
    method = FeatureClusters(model, config)
    alone = method.regions(latents[1:], None, generators()[1:])
    assert torch.equal(method.regions(latents, None, generators())[1], alone[0])


def test_bfloat16_regions_are_nearly_equal():
    """For most images: of two starts of K-means that end almost equally well, rounding may choose the other one."""
    models = load_model(ModelConfig(name="shapes", dtype="bfloat16"), torch.device("cpu")), loaded("shapes")
    shares = []
    for number in range(6):
        pixels = models[0].pixels(scene(number))[None]
        found, expected = (
            FeatureClusters(model, chosen("shapes", {})).regions(model.encode(pixels), None, generators()[:1])
            for model in models
        )
        shares.append((found == expected).float().mean().item())
    assert sorted(shares)[2] > 0.9


def test_results_agree_on_the_architecture_of_stable_diffusion_v15(stable_diffusion):
    """At half its size, whose 6400 channels become 64 dimensions."""
    model = load_model(ModelConfig(name=str(stable_diffusion), dtype="float32", image_size=256), torch.device("cpu"))
    config = FreeSegDiffConfig()
    image = scene().resize((500, 375))
    found = FeatureClusters(model, config).regions(model.encode(model.pixels(image)[None]), None, generators()[:1])[0]
    points = plain.points(model, config, image, None)
    assert points.shape == (1024, 6400)
    assert np.array_equal(found.flatten(), plain.cluster(points, starts(points, config, generators()[0])))


def test_images_of_regions_are_black_outside():
    image = np.arange(1, 37, dtype=np.uint8).reshape(3, 4, 3)
    regions = np.array([[0, 0, 2, 2], [0, 5, 5, 2], [0, 0, 0, 0]], np.uint8)
    crops = cut_out(image, regions)
    assert len(crops) == 3
    for crop, number in zip(crops, (0, 2, 5), strict=True):
        assert (crop[regions == number] == image[regions == number]).all()
        assert not crop[regions != number].any()
        assert crop.dtype == np.uint8


SIMILARITIES = torch.tensor(
    [
        # Three classes, and one word for background.
        [0.9, 0.1, 0.2, 0.3],
        [0.1, 0.6, 0.2, 0.3],
        [0.1, 0.2, 0.8, 0.7],
        [0.1, 0.2, 0.7, 0.8],
        [0.8, 0.2, 0.1, 0.3],
    ]
)


def test_a_region_gets_its_nearest_class_if_it_is_a_candidate():
    assert name_regions(SIMILARITIES, 3, (1, 3)) == [1, 0, 3, 0, 1]
    assert name_regions(SIMILARITIES[:, :3], 3, (1, 3)) == [1, 0, 3, 3, 1]
    assert name_regions(SIMILARITIES, 3, (2,)) == [0, 2, 0, 0, 0]


SCALE = 100.0  # of OpenAI's CLIP
# By hand: with two words, shares are 1 / (1 + exp(100 * difference)).
RELEASED_NAMES = {
    "a region whose nearest word is no candidate": ([[0.25, 0.26, 0.10], [0.10, 0.10, 0.25]], [1], [1, 0]),
    # Shares of word 1: .62 and 1, though its cosine is larger in the first region. That one is left word 2, at .38.
    "two regions want one class": ([[0.30, 0.295], [0.26, 0.10]], [1, 2], [2, 1]),
    "two regions want the only class": ([[0.30, 0.295], [0.26, 0.10]], [1], [0, 1]),
    # Both classes have their largest share in the first region, and the second is left none.
    "one region is the best of two classes": ([[0.30, 0.31, 0.10], [0.10, 0.10, 0.30]], [1, 2], [2, 0]),
    "equal shares": ([[0.30, 0.20], [0.30, 0.20], [0.30, 0.20]], [1, 2], [1, 0, 0]),
    "equal shares in one region": ([[0.20, 0.20]], [2, 1], [1]),
    "no candidate": ([[0.25, 0.26], [0.10, 0.30]], [], [0, 0]),
}


@pytest.mark.parametrize("case", RELEASED_NAMES)
def test_released_names_computed_by_hand(case):
    cosines, candidates, expected = RELEASED_NAMES[case]
    assert share_regions(torch.tensor(cosines), SCALE, candidates) == expected


def test_released_names_equal_a_plain_version():
    """With words so similar that float32 distinguishes all shares from 1."""
    rng, different = np.random.default_rng(0), 0
    for _ in range(300):
        regions, words = rng.integers(1, 7, 2)
        cosines = rng.normal(0.25, rng.choice([0.005, 0.01, 0.02]), (regions, words)).astype(np.float32)
        candidates = sorted({int(word) for word in rng.integers(1, words + 1, rng.integers(1, 5))})
        found = share_regions(torch.from_numpy(cosines), SCALE, candidates)
        rows = dict(enumerate(cosines.astype(float).tolist()))
        assert found == list(plain.name_as_released(rows, SCALE, candidates).values())
        assert len(named := [name for name in found if name]) == len(set(named))
        different += found != name_regions(torch.from_numpy(cosines), int(words), candidates)
    assert different > 50, "the two rules hardly differ"


def test_clusters_are_enlarged_at_the_centres_or_the_corners_of_pixels():
    """Three clusters on four pixels: centres at .375, 1.125, 1.875 and 2.625, corners at 0, .75, 1.5 and 2.25."""
    clusters = np.arange(9, dtype=np.uint8).reshape(3, 3)
    centre, corner = (enlarge_clusters(clusters, (4, 3), replace(CONFIG, enlarge=how)) for how in ENLARGE)
    assert centre.tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8]]
    assert corner.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert enlarge_clusters(clusters, (2, 4), replace(CONFIG, enlarge="nearest")).tolist() == [
        [0, 0, 1, 2],
        [3, 3, 4, 5],
    ]


@pytest.mark.parametrize("how", ENLARGE)
@pytest.mark.parametrize("pixels", [333, 375, 480, 500, 640])
def test_enlarging_modes_are_torchs(pixels, how):
    rows = np.repeat(np.arange(32, dtype=np.uint8)[:, None], 32, 1)
    tensor = torch.from_numpy(rows).float()[None, None]
    expected = torch.nn.functional.interpolate(tensor, (pixels, 100), mode=how.replace("_", "-"))[0, 0].numpy()
    down = enlarge_clusters(rows, (pixels, 100), replace(CONFIG, enlarge=how))
    right = enlarge_clusters(np.ascontiguousarray(rows.T), (100, pixels), replace(CONFIG, enlarge=how))
    assert np.array_equal(down, right.T)
    assert down.dtype == np.uint8
    # The middle one of an odd number of pixels has its centre on the border of two clusters: either may have it.
    same = (down == expected).all(1)
    assert same.sum() >= pixels - (pixels % 2 if how == "nearest_exact" else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep": 1000}, "`freesegdiff.timestep` 1000: give one from 0 to 999"),
        ({"timestep": -1}, "freesegdiff.timestep"),
        ({"strides": []}, "freesegdiff.strides"),
        ({"strides": [4]}, r"queries features, \[8, 16, 32, 64\]"),
        ({"features": "both", "strides": [4]}, "resblock or attention features"),
        ({"side": 0}, "`freesegdiff.side` 0"),
        ({"clusters": 0}, "`freesegdiff.clusters` 0: give 1 to 256"),
        ({"side": 3, "clusters": 10}, "give 1 to 9"),
        ({"restarts": 0}, "`freesegdiff.restarts` 0"),
    ],
    ids=str,
)
def test_settings_beyond_the_model_are_refused(change, message):
    with pytest.raises(SettingError, match=message):
        FeatureClusters(loaded("tiny"), replace(CONFIG, **change))
