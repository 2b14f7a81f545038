"""Which engine is taken, and what the settings of a run say about it."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.config import CrfConfig
from pseudolabel.crf import engines
from pseudolabel.crf.engines import open_mean_field, resolve_engine
from pseudolabel.crf.pydensecrf_engine import mean_field
from pseudolabel.crf.torch_engine import TorchCrf
from pseudolabel.errors import SettingError

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
def test_auto_depends_on_the_device(engine, device, expected):
    assert resolve_engine(CrfConfig(engine=engine), device) == CrfConfig(engine=expected)


@pytest.fixture
def without_pydensecrf(monkeypatch):
    """As where the extra `crf` is not installed."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    engines._say_that_torch_replaces_it.cache_clear()
    open_mean_field.cache_clear()
    yield
    open_mean_field.cache_clear()


def test_torch_replaces_an_engine_that_is_not_installed(without_pydensecrf, caplog, monkeypatch):
    caplog.set_level("INFO", "pseudolabel")
    for _ in range(2):
        assert resolve_engine(CrfConfig(), CPU).engine == "torch"
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "DenseCRF runs in torch, with the same labels"
    ]
    assert "pip install 'pseudolabel[crf]'" in caplog.text
    assert resolve_engine(CrfConfig(), CUDA).engine == "torch"
    with pytest.raises(SettingError, match=r"`crf.engine` pydensecrf: it is not installed; pip install"):
        resolve_engine(CrfConfig(engine="pydensecrf"), CPU)
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8))]
    scores = [torch.from_numpy(rng.random((2, 9, 7), np.float32))]
    expected = TorchCrf(CrfConfig(), CPU)(images, scores)[0]
    np.testing.assert_array_equal(open_mean_field(CrfConfig(), CPU)(images, scores)[0], expected)
    monkeypatch.setattr(engines, "LARGEST_ON_DEVICE", 1)
    np.testing.assert_array_equal(open_mean_field(CrfConfig(), CPU)(images, scores)[0], expected)


@pytest.mark.parametrize("name", ["gaussian_sxy", "bilateral_sxy", "bilateral_srgb"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_sigmas_are_positive(name, value):
    with pytest.raises(SettingError, match=f"crf.{name} {value}"):
        open_mean_field(replace(CrfConfig(), **{name: value}), CPU)


def test_the_chosen_engine_is_used_except_for_large_images(monkeypatch):
    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8), rng.random((2, 9, 7), np.float32)
    config = CrfConfig(engine="torch")
    by_torch, by_cores = open_mean_field(config, CPU), open_mean_field(CrfConfig(), CPU)
    assert open_mean_field(config, CPU) is by_torch
    images, own = [torch.from_numpy(image)], [torch.from_numpy(scores)]
    np.testing.assert_array_equal(by_torch(images, own)[0], TorchCrf(config, CPU)(images, own)[0])
    np.testing.assert_array_equal(by_cores(images, own)[0], mean_field(image, scores, config))
    monkeypatch.setattr(engines, "LARGEST_ON_DEVICE", image.shape[0] * image.shape[1] - 1)
    np.testing.assert_array_equal(by_torch(images, own)[0], by_cores(images, own)[0])
