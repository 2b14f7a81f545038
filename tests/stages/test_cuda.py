"""The labelling loop on a CUDA device; the same code on a CPU is tested beside."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import DiffSegmenterConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.methods.diffsegmenter_predictor import DiffSegmenterPredictor
from pseudolabel.methods.registry import Context
from pseudolabel.records import Sample
from pseudolabel.shapes.world import draw_scene
from pseudolabel.vocabulary import load_vocabulary
from tests.plain.architectures import loaded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MODEL = ModelConfig(name="shapes", dtype="float32")


def maps_of(model):
    scenes = [draw_scene(np.random.default_rng([3, number])) for number in range(9)]
    drawn = [Sample(f"scene_{number}", scene.image, scene.classes) for number, scene in enumerate(scenes)]
    context = Context(model.device, load_vocabulary("shapes"), model, batch=12)
    predictor = DiffSegmenterPredictor(context, DiffSegmenterConfig())
    return np.concatenate([maps.maps.astype(np.float32) for _, maps in predictor(drawn)])


@pytest.fixture(scope="module")
def on_cuda():
    return load_model(MODEL, torch.device("cuda"))


def test_maps_equal_the_cpus(on_cuda):
    np.testing.assert_allclose(maps_of(on_cuda), maps_of(loaded("shapes")), atol=5e-3)


def test_compiled_parts_give_the_same_maps(on_cuda):
    compiled = load_model(replace(MODEL, compile=True), torch.device("cuda"))
    np.testing.assert_allclose(maps_of(compiled), maps_of(on_cuda), atol=5e-3)


def test_no_synchronization_between_image_and_map(on_cuda):
    model, method = on_cuda, CompletedAttention(on_cuda, DiffSegmenterConfig(timesteps=[50, 150]))
    pixels = model.pin(torch.rand(2, 3, model.image_size, model.image_size) * 2 - 1)
    noise, weights = torch.randn(2, 1, *model.latent_shape), torch.full((2, 1, 77), 1 / 77)
    embeddings = model.encode_text(["circle", "star"])
    method(model.encode(pixels), noise, embeddings, weights)  # sets up libraries
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        maps = method(model.encode(pixels), noise, embeddings, weights)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert torch.isfinite(maps).all()
