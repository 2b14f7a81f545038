from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from pseudolabel.config import DiffSegmenterConfig, ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.methods.diffsegmenter import CompletedAttention
from tests.plain.architectures import loaded

CPU = torch.device("cpu")
CONFIG = DiffSegmenterConfig(timesteps=[50, 150], self_attention="all")


def maps_of(model, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(1, 3, model.image_size, model.image_size, generator=generator) * 2 - 1
    noise, weights = torch.randn(1, 1, *model.latent_shape, generator=generator), torch.full((1, 1, 77), 1 / 77)
    return CompletedAttention(model, CONFIG)(
        model.encode(pixels), noise, model.encode_text(["a star"]), weights
    ).numpy()


@pytest.mark.slow
def test_compiled_parts_give_the_same_maps_and_are_compiled_once(monkeypatch):
    """Traced and run without the C++ compiler, which takes minutes for its nine kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = load_model(ModelConfig(name="shapes", compile=True), CPU)
    np.testing.assert_allclose(maps_of(compiled, 0), maps_of(loaded("shapes"), 0), atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for seed in (1, 2):
        np.testing.assert_allclose(maps_of(compiled, seed), maps_of(loaded("shapes"), seed), atol=1e-5)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
