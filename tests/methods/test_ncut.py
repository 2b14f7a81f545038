"""Normalised cuts against the quadratic form, and DiffCut's segments against the plain version."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from pseudolabel.config import DiffSegConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import SampleError, SettingError
from pseudolabel.methods.diffseg_predictor import DiffSegPredictor
from pseudolabel.methods.ncut import CutFeatures, affinity, best_cut, cut
from pseudolabel.methods.registry import Context
from pseudolabel.records import LabelMap, Sample
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain import ncut as plain
from tests.plain.architectures import context, loaded

DIFFCUT = DiffSegConfig(grouping="ncut", timestep=50)
LAYERS = {
    "tiny": "down_blocks.2.attentions.1.transformer_blocks.0.attn1",
    "tiny_v2": "down_blocks.2.attentions.1.transformer_blocks.0.attn1",
    "shapes": "down_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "tiny_xl": "down_blocks.2.attentions.1.transformer_blocks.1.attn1",
    "tiny_ssd": "down_blocks.2.attentions.1.transformer_blocks.3.attn1",  # the one that the authors name for SSD-1B
}


def weights(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 5)) + 1
    return affinity(rows / np.linalg.norm(rows, axis=1, keepdims=True), 3.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_cut_has_the_value_of_the_quadratic_form(seed: int) -> None:
    own = weights(9, seed)
    value, first = best_cut(own)
    assert value == pytest.approx(plain.quadratic_form(own, first))
    everyone = (np.array(chosen, bool) for chosen in product((0, 1), repeat=9))
    smallest = min(plain.quadratic_form(own, chosen) for chosen in everyone if 0 < chosen.sum() < 9)
    assert smallest <= value + 1e-12
    assert value < 1.5 * smallest  # the eigenvector's order need not hold the best of all cuts


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.1])
def test_parts_are_those_of_the_plain_recursion(threshold: float) -> None:
    own = weights(40, 7)
    labels = cut(own, threshold)
    found = {tuple(np.flatnonzero(labels == number)) for number in range(labels.max() + 1)}
    assert found == {tuple(sorted(part)) for part in plain.split(own, list(range(40)), threshold)}
    firsts = [np.flatnonzero(labels == number)[0] for number in range(labels.max() + 1)]
    assert firsts == sorted(firsts)


def test_the_order_of_positions_changes_no_part() -> None:
    own, order = weights(30, 3), np.random.default_rng(1).permutation(30)
    labels, moved = cut(own, 0.9), cut(own[np.ix_(order, order)], 0.9)
    together = labels[:, None] == labels
    assert labels.max() > 1
    np.testing.assert_array_equal(moved[:, None] == moved, together[np.ix_(order, order)])


def test_planted_groups_are_found() -> None:
    """The least similar pair of positions has a weight of 0, and stays."""
    rng, groups = np.random.default_rng(0), np.repeat([0, 1, 2, 3], 16)
    rows = np.eye(4)[groups] + 0.05 * rng.random((64, 4))
    own = affinity(rows / np.linalg.norm(rows, axis=1, keepdims=True), 10.0)
    assert own.min() == 0
    np.testing.assert_array_equal(cut(own, 0.5), groups)


def test_positions_that_are_all_alike_are_one_part() -> None:
    assert not cut(affinity(np.tile([0.6, 0.8], (20, 1)), 10.0), 0.5).any()
    assert cut(np.ones((1, 1)), 0.5).tolist() == [0]


@pytest.mark.parametrize("name", LAYERS)
def test_segments_equal_the_plain_version(name: str) -> None:
    config = DiffSegConfig(grouping="ncut", timestep=50, self_layers=[0] * (name == "shapes"), cut_threshold=0.8)
    model, scene = loaded(name), draw_scene(np.random.default_rng(4))
    size = (104, 136)  # not the model's square
    sample = Sample("scene", scene.image.resize(size[::-1]), scene.classes)
    predictor = DiffSegPredictor(context(name, load_vocabulary("shapes")), config)
    ((_, result),) = predictor([sample])
    assert isinstance(result, LabelMap)
    noise = draw_noise(0, "noise", "scene", 1, model.latent_shape)[0]
    maps = plain.features(model, sample.image, LAYERS[name], 50, noise)
    expected = plain.segment(maps, size, config.cut_power, config.cut_threshold)
    same = [np.unique(result.labels[expected == number], return_counts=True)[1].max() for number in np.unique(expected)]
    assert len(np.unique(expected)) == len(np.unique(result.labels)) > 1
    assert sum(same) / expected.size > 0.999  # float32 products against float64


def test_other_images_of_a_batch_change_nothing() -> None:
    predictor = DiffSegPredictor(context("shapes", load_vocabulary("shapes"), batch=3), DIFFCUT)
    scenes = [draw_scene(np.random.default_rng(number)) for number in range(3)]
    samples = [Sample(f"scene_{number}", scene.image, scene.classes) for number, scene in enumerate(scenes)]
    together = [result.labels for _, result in predictor(samples) if isinstance(result, LabelMap)]
    alone = [result.labels for one in samples for _, result in predictor([one]) if isinstance(result, LabelMap)]
    assert len(together) == len(alone) == 3
    assert all((one == other).mean() > 0.999 for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("semantic", [False, True])
def test_features_that_overflow_fail_the_sample(semantic: bool) -> None:
    model = load_model(ModelConfig(name="shapes"), torch.device("cpu"))
    cuts = DiffSegPredictor(
        Context(model.device, load_vocabulary("shapes"), model), replace(DIFFCUT, semantic=semantic, self_layers=[0])
    )
    model.unet.get_submodule(LAYERS["shapes"]).to_out[0].bias.fill_(torch.inf)
    scene = draw_scene(np.random.default_rng(0))
    ((_, result),) = cuts([Sample("scene", scene.image, scene.classes)])
    assert isinstance(result, SampleError)
    assert "overflow; set `model.dtype` to float32" in str(result)


@pytest.mark.parametrize(
    ("model", "layers", "message"),
    [
        ("tiny", [1, 2], r"`diffseg.self_layers` \[1, 2\]: .* give one layer"),
        ("tiny", [99], r"`diffseg.self_layers` \[99\]: this model has"),
        ("shapes_standard", [], "has weights of zero"),
    ],
)
def test_layers_that_cannot_be_cut_are_refused(model: str, layers: list[int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CutFeatures(loaded(model), DiffSegConfig(grouping="ncut", self_layers=layers))


def test_a_large_layer_is_refused(stable_diffusion) -> None:
    model = load_model(ModelConfig(name=str(stable_diffusion)), torch.device("cpu"))
    assert CutFeatures(model, DIFFCUT).layer.name == LAYERS["tiny"]
    with pytest.raises(SettingError, match="64 x 64 positions, and cuts are made of at most 1024"):
        CutFeatures(model, DiffSegConfig(grouping="ncut", self_layers=[0]))
