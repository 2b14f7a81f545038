"""The fast path against DiffSeg written plainly from its Algorithm 1 and its released code (tests/plain/diffseg.py)."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy

from pseudolabel.config import DiffSegConfig
from pseudolabel.errors import SettingError
from pseudolabel.methods import diffseg
from pseudolabel.methods.diffseg import (
    AggregatedAttention,
    aggregate,
    anchor_positions,
    divergences,
    merge,
    name_segments,
    suppress,
)
from pseudolabel.shapes.world import draw_scene
from tests.plain import diffseg as plain
from tests.plain.architectures import loaded
from tests.plain.diffsegmenter import attend, encode_image, encode_text, pool_text

pytestmark = pytest.mark.slow

SIZE = (110, 150)
# Thresholds at which the models' maps merge into some segments, but not into one.
BASE = {
    "tiny": DiffSegConfig(threshold=0.12, anchors=5),
    "tiny_v2": DiffSegConfig(threshold=0.1, anchors=5),
    "shapes": DiffSegConfig(threshold=0.05, anchors=5),
    "tiny_xl": DiffSegConfig(threshold=0.15, anchors=5),
}
CHANGES = [
    {},
    {"weights": "per_tensor"},
    {"merging": "strict"},
    {"precision": "float16"},
    {"timestep": 1},
    {"anchors": 8},
    {"iterations": 2},
    {"iterations": 5, "merging": "strict"},
    {"threshold": 0.08},
    {"self_layers": [0, 3]},
    {"weights": "per_tensor", "merging": "strict", "precision": "float16"},
]
TIE = 1e-5  # values nearer than this share of them may change places when they are rounded


def scene(seed=0):
    return draw_scene(np.random.default_rng(seed)).image.resize((SIZE[1], SIZE[0]))


def latents(model, *seeds):
    return model.encode(torch.stack([model.pixels(scene(seed)) for seed in seeds]))


@cache
def plain_attention(name, timestep, seed=0):
    return plain.self_attention(loaded(name), scene(seed), timestep)


def plain_aggregate(name, config):
    layers = plain_attention(name, config.timestep)
    chosen = [layers[number] for number in config.self_layers or range(len(layers))]
    return plain.aggregate(chosen, config.weights)


def structured(side, regions, noise=1.0, seed=0):
    """Distributions over side x side positions, float32 (n, n), nearly equal within some regions."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, side, (regions, 2))
    places = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    region = ((places - centres) ** 2).sum(-1).argmin(1)
    logits = 2.0 * (region[:, None] == region) + noise * rng.normal(size=(side**2, side**2))
    rows = np.exp(logits)
    return torch.from_numpy((rows / rows.sum(1, keepdims=True)).astype(np.float32))


def tensor_4d(maps):
    side = math.isqrt(len(maps))
    return maps.double().numpy().reshape(side, side, side, side)


def assert_same_masks(labels, proposals):
    """Equal to the plain way's; where it has two values that are all but equal, either may win."""
    expected = plain.segment(proposals, SIZE)
    assert len(np.unique(expected)) > 1
    second, first = np.sort([plain.bilinear(one, SIZE) for one in proposals], axis=0)[-2:]
    clear = first - second > TIE * first
    np.testing.assert_array_equal(labels.numpy()[clear], expected[clear])
    assert clear.mean() > 0.999


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("name", ["tiny", "shapes"])
def test_masks_equal_the_plain_loop(name, change):
    model, config = loaded(name), replace(BASE[name], **change)
    (maps,) = AggregatedAttention(model, config)(latents(model, 0))
    (proposals,) = merge(maps, config)
    expected = plain.proposals(plain_aggregate(name, config), config)
    assert len(proposals) == len(expected)
    assert_same_masks(suppress(proposals, SIZE), expected)


@pytest.mark.parametrize("name", ["tiny_v2", "tiny_xl"])
def test_masks_equal_the_plain_loop_at_other_sizes(name):
    model, config = loaded(name), BASE[name]
    (maps,) = AggregatedAttention(model, config)(latents(model, 0))
    tensor = plain.aggregate(plain_attention(name, config.timestep), config.weights)
    np.testing.assert_allclose(maps[0].numpy(), tensor.reshape(maps[0].shape), atol=1e-6)
    assert_same_masks(suppress(merge(maps, config)[0], SIZE), plain.proposals(tensor, config))


@pytest.mark.parametrize("change", [change for change in CHANGES if change != {"precision": "float16"}][1:], ids=str)
def test_every_option_matters(change):
    """Agreement is meaningful only if a method with other settings would not agree."""
    model, config = loaded("tiny"), BASE["tiny"]
    (maps,) = AggregatedAttention(model, config)(latents(model, 0))
    other = replace(config, **change)
    expected = plain.proposals(plain_aggregate("tiny", other), other)
    proposals = merge(maps, config)[0].numpy()
    assert len(proposals) != len(expected) or np.abs(proposals - np.array(expected)).max() > 1e-5


@pytest.mark.parametrize("change", [{}, {"merging": "strict"}, {"precision": "float16"}, {"iterations": 1}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_merges_of_random_maps_equal_the_plain_loop(seed, change):
    config = replace(DiffSegConfig(anchors=6, threshold=1.0 - 0.1 * seed), **change)
    maps = structured(10, 4, noise=0.7, seed=seed)
    (proposals,) = merge(maps[None], config)
    expected = plain.proposals(tensor_4d(maps), config)
    np.testing.assert_allclose(proposals.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(suppress(proposals, SIZE).numpy(), plain.segment(expected, SIZE))


@pytest.mark.parametrize("change", [{}, {"merging": "strict", "precision": "float16"}], ids=str)
def test_merges_of_larger_random_maps_equal_the_plain_loop(change):
    config = replace(DiffSegConfig(anchors=8, threshold=0.55), **change)
    maps = structured(32, 7, noise=0.7)
    (proposals,) = merge(maps[None], config)
    expected = plain.proposals(tensor_4d(maps), config)
    assert len(expected) > 2
    np.testing.assert_allclose(proposals.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(suppress(proposals, SIZE).numpy(), plain.segment(expected, SIZE))


def test_float16_compares_rounded_values():
    """Two maps that are just alike before rounding and just not after it, or the other way round."""
    rows = structured(2, 1, noise=0.5)
    exact, rounded = divergences(rows, rows), divergences(rows.half().float(), rows.half().float())
    first, second = np.unravel_index((exact - rounded).abs().argmax(), exact.shape)
    threshold = (exact[first, second] + rounded[first, second]).item() / 2
    maps = rows[[first, second, second, second]]  # the only anchor of a map this small is its first position
    results = [
        merge(maps[None], DiffSegConfig(anchors=1, iterations=1, threshold=threshold, precision=precision))[0]
        for precision in ("float32", "float16")
    ]
    alike, apart = sorted(results, key=lambda proposal: (proposal.flatten() - rows[first]).abs().sum(), reverse=True)
    torch.testing.assert_close(apart.flatten(), rows[first].double())
    torch.testing.assert_close(alike.flatten(), ((rows[first] + 3 * rows[second]) / 4).double())
    assert (exact[first, second] < threshold) == (alike is results[0])


@pytest.mark.parametrize("weights", ["per_resolution", "per_tensor"])
@pytest.mark.parametrize("sides", [(8, 4, 2), (9, 5, 3), (6, 6, 1)])
def test_aggregation_of_any_sides_equals_the_plain_loop(sides, weights):
    generator = torch.Generator().manual_seed(0)
    levels, tensors = [], []
    for count, side in enumerate(sorted(set(sides), reverse=True), 1):
        level = [tuple(2 * torch.randn(2, 3, side**2, 5, generator=generator) for _ in range(2)) for _ in range(count)]
        levels.append(level)
        for query, key in level:
            matrix = (query[1] @ key[1].mT / 5**0.5).softmax(-1).mean(0)
            tensors.append(tensor_4d(matrix))
    expected = plain.aggregate(tensors, weights)
    found = aggregate(levels, weights)[1]
    np.testing.assert_allclose(found.numpy(), expected.reshape(found.shape), atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(len(found)))


def test_the_weights_of_stable_diffusions_resolutions():
    """64/120, 32/120, 16/120, 8/120, whatever the number of layers, when each counts once."""
    levels = []
    for side, count in ((16, 5), (8, 5), (4, 5), (2, 6)):  # in the proportions of 64, 32, 16 and 8
        key = torch.zeros(1, 1, side**2, 1)
        query = key.clone()
        if side == 2:  # all of its attention in one corner, where the others' is uniform
            key[0, 0, 0], query = 1, torch.full_like(key, 200.0)
        levels.append([(query, key)] * count)
    share = {}
    for weights in ("per_resolution", "per_tensor"):
        maps = aggregate(levels, weights)
        # The last position is far from the corner: only the others' uniform attention is there.
        share[weights] = 1 - maps[0, 0, -1].item() * 16**2
    assert share["per_resolution"] == pytest.approx(8 / 120, rel=1e-4)
    assert share["per_tensor"] == pytest.approx(6 * 8 / (5 * 112 + 6 * 8), rel=1e-4)


def test_anchors_of_the_released_code():
    line = list(range(1, 62, 4))
    assert anchor_positions(64, 16).tolist() == [row * 64 + column for row in line for column in line]
    assert anchor_positions(8, 1).tolist() == [3 * 8 + 3]


def test_divergences_equal_scipys():
    one, other = structured(5, 3, seed=1), structured(5, 2, seed=2)[:7]
    expected = [[(entropy(p, q) + entropy(q, p)) / 2 for q in other.double()] for p in one.double()]
    np.testing.assert_allclose(divergences(one, other).numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(divergences(one.double(), other.double()).numpy(), expected, atol=1e-12)


def test_divergences_of_maps_with_zeros_are_finite():
    maps = torch.eye(3) * 0.9 + torch.tensor([0.1, 0, 0])
    expected = [[plain.divergence(p, q) for q in maps.double().numpy()] for p in maps.double().numpy()]
    np.testing.assert_allclose(divergences(maps, maps).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert expected[1][2] > 30


def test_images_of_a_batch_are_independent(monkeypatch):
    model, config = loaded("shapes"), BASE["shapes"]
    method = AggregatedAttention(model, config)
    (together,) = method(latents(model, 0, 1, 2))
    alone = [next(iter(method(latents(model, seed)))) for seed in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-4)
    monkeypatch.setattr(diffseg, "GROUP", 2 * 16**4)
    groups = list(method(latents(model, 0, 1, 2)))
    assert [len(group) for group in groups] == [2, 1]
    torch.testing.assert_close(torch.cat(groups), together, atol=1e-6, rtol=1e-4)
    for found, expected in zip(merge(together, config), alone, strict=True):
        torch.testing.assert_close(found, merge(expected, config)[0], atol=1e-5, rtol=1e-3)


def test_the_size_of_steps_changes_nothing(monkeypatch):
    model, config = loaded("shapes"), BASE["shapes"]

    def labels():
        (maps,) = AggregatedAttention(model, config)(latents(model, 4))
        return suppress(merge(maps, config)[0], SIZE)

    expected = labels()
    monkeypatch.setattr(diffseg, "CPU_CHUNK", 2**12)
    assert torch.equal(labels(), expected)


def test_the_first_of_equal_proposals_wins():
    low, high = torch.zeros(2, 2), torch.ones(2, 2)
    assert suppress(torch.stack([low, high, high, low]), (5, 3)).unique().tolist() == [1]


@pytest.mark.parametrize("name", ["shapes", "tiny_xl"])
def test_segment_names_equal_the_plain_loop(name):
    model = loaded(name)
    image, prompt = scene(1), "a photograph of circle and star"
    names = {name: token for token, name in enumerate(prompt.split(" "), 1)}
    weights = torch.zeros(1, 2, 77)
    weights[0, 0, names["circle"]] = weights[0, 1, names["star"]] = 1
    method = AggregatedAttention(model, BASE[name])
    levels = method.text_maps(latents(model, 1), model.encode_text([prompt]), weights)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.permutation(9).reshape(3, 3), np.ones((40, 50), int))[: SIZE[0], : SIZE[1]]
    found = name_segments(torch.from_numpy(labels), [level[0] for level in levels])
    with torch.inference_mode():
        text, pooled = encode_text(model, prompt), pool_text(model, prompt)
        attention = attend(model, encode_image(model, image, None), method.config.timestep, text, pooled)
    tensors = [matrix.probabilities.mean(0).numpy() for matrix in attention if matrix.is_cross]
    expected = plain.name_segments(labels, tensors, [[names["circle"]], [names["star"]]])
    assert found.tolist() == expected
    assert set(expected) == {0, 1}


def test_a_small_class_wins_where_its_share_is_largest():
    """Each class's map is scaled to sum 1, so a class with weak attention everywhere is not lost."""
    strong, weak = torch.full((4, 4), 0.5), torch.zeros(4, 4)
    weak[:2] = 0.01
    labels = torch.tensor([[0, 0], [1, 1]])
    assert name_segments(labels, [torch.stack([strong, weak])]).tolist() == [1, 0]
    assert F.one_hot(name_segments(labels, [torch.stack([strong])])).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep": 1000}, "0 to 999"),
        ({"timestep": -1}, "timestep"),
        ({"anchors": 0}, "anchors"),
        ({"iterations": 0}, "at least one pass"),
        ({"threshold": 0.0}, "threshold greater than 0"),
        ({"clusters": 257}, "1 to 256"),
        ({"clusters": -1}, "clusters"),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(SettingError, match=message):
        AggregatedAttention(loaded("tiny"), DiffSegConfig(**change))
