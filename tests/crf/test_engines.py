"""Which engine is taken, and what the settings of a run say about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf import engines
from pseudolabel.crf.engines import open_mean_field, resolve_engine
from pseudolabel.crf.pydensecrf_engine import mean_field
from pseudolabel.crf.scipy_engine import ScipyMeanField
from pseudolabel.crf.torch_engine import TorchMeanField
from pseudolabel.errors import SettingError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("engine", "device", "expected"),
    [
        ("auto", CPU, "scipy"),
        ("auto", CUDA, "torch"),
        ("auto", torch.device("mps"), "scipy"),
        ("pydensecrf", CUDA, "pydensecrf"),
        ("torch", CPU, "torch"),
    ],
)
def test_auto_depends_on_the_device(engine, device, expected):
    assert resolve_engine(CrfConfig(engine=engine), device) == CrfConfig(engine=expected)


@pytest.mark.parametrize("name", ["gaussian_sxy", "bilateral_sxy", "bilateral_srgb"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_sigmas_are_positive(name, value):
    with pytest.raises(SettingError, match=f"crf.{name} {value}"):
        open_mean_field(replace(CrfConfig(), **{name: value}), CPU)


def test_the_chosen_engine_is_used_except_for_large_images(monkeypatch):
    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8), rng.random((2, 9, 7), np.float32)
    config = CrfConfig(engine="torch")
    by_torch, by_cores = open_mean_field(config, CPU), open_mean_field(replace(config, engine="pydensecrf"), CPU)
    assert open_mean_field(config, CPU) is by_torch
    images, own = [torch.from_numpy(image)], [torch.from_numpy(scores)]
    np.testing.assert_array_equal(by_torch(images, own)[0], TorchMeanField(config, CPU)(images, own)[0])
    np.testing.assert_array_equal(by_cores(images, own)[0], mean_field(image, scores, config))
    monkeypatch.setattr(engines, "LARGEST_ON_DEVICE", image.shape[0] * image.shape[1] - 1)
    np.testing.assert_array_equal(by_torch(images, own)[0], ScipyMeanField(config)(images, own)[0])
