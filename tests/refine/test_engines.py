"""Which engine is taken, and what the settings of a run say about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import CrfConfig, Experiment
from pseudolabel.errors import SettingError
from pseudolabel.refine import engines
from pseudolabel.refine.engines import open_mean_field, resolve_engine, resolve_engines
from pseudolabel.refine.pydensecrf_engine import mean_field
from pseudolabel.refine.torch_engine import TorchCrf

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("engine", "device", "expected"),
    [
        ("auto", CPU, "pydensecrf"),
        ("auto", CUDA, "torch"),
        ("auto", torch.device("mps"), "pydensecrf"),
        ("pydensecrf", CUDA, "pydensecrf"),
        ("torch", CPU, "torch"),
    ],
)
def test_auto_goes_by_the_device(engine, device, expected):
    assert resolve_engine(CrfConfig(engine=engine), device) == CrfConfig(engine=expected)


def test_every_crf_of_an_experiment_is_resolved():
    resolved = resolve_engines(Experiment(), CUDA)
    assert resolved.crf == CrfConfig(engine="torch")
    assert resolved.freesegdiff.crf == replace(Experiment().freesegdiff.crf, engine="torch")


@pytest.mark.parametrize("name", ["gaussian_sxy", "bilateral_sxy", "bilateral_srgb"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_deviations_are_positive(name, value):
    with pytest.raises(SettingError, match=f"crf.{name} {value}"):
        open_mean_field(replace(CrfConfig(), **{name: value}), CPU)


def test_the_engine_named_does_the_work_but_for_images_too_large(monkeypatch):
    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8), rng.random((2, 9, 7), np.float32)
    config = CrfConfig(engine="torch")
    by_torch, by_cores = open_mean_field(config, CPU), open_mean_field(CrfConfig(), CPU)
    assert open_mean_field(config, CPU) is by_torch
    np.testing.assert_array_equal(by_torch(image, scores), TorchCrf(config, CPU).mean_field(image, scores))
    np.testing.assert_array_equal(by_cores(image, scores), mean_field(image, scores, config))
    monkeypatch.setattr(engines, "LARGEST_ON_DEVICE", image.shape[0] * image.shape[1] - 1)
    np.testing.assert_array_equal(by_torch(image, scores), by_cores(image, scores))
