"""The public TorchCrf: arrays and tensors, beside pydensecrf's marginals; and life without pydensecrf."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import pseudolabel as pl
from pseudolabel.config import CrfConfig
from pseudolabel.crf.pydensecrf_engine import mean_field
from pseudolabel.shapes.world import draw_scene

SETTINGS = {"iterations": 3, "bilateral_sxy": 10.0, "bilateral_srgb": 20.0}


@pytest.fixture(params=["cpu", *["cuda"] * torch.cuda.is_available()])
def crf(request):
    return pl.crf.TorchCrf(**SETTINGS, device=request.param)


def draw():
    rng = np.random.default_rng(0)
    return np.array(draw_scene(rng, 48).image), rng.random((3, 48, 48), np.float32)


def test_arrays_give_arrays_and_tensors_give_tensors(crf):
    image, scores = draw()
    expected = mean_field(image, scores, CrfConfig(**SETTINGS))
    found = crf(image, scores)
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)
    np.testing.assert_array_equal(found.labels, found.scores.argmax(0))
    given = torch.from_numpy(scores).double().requires_grad_()
    tensors = crf(torch.from_numpy(image), given)
    np.testing.assert_array_equal(tensors.scores, found.scores)
    np.testing.assert_array_equal(tensors.labels, found.labels)
    (tensors.scores * torch.ones(3, 1, 1, requires_grad=True)).sum().backward()  # not a tensor of inference mode
    assert given.grad is None


def test_memory_layouts_do_not_matter(crf):
    image, scores = draw()
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).permute(1, 2, 0)
    image.flags.writeable = False
    expected = crf(image, scores).scores
    np.testing.assert_array_equal(crf(planes, np.asfortranarray(scores)).scores, expected)
    np.testing.assert_array_equal(crf(image[:, ::-1], scores[..., ::-1]).labels.shape, (48, 48))


@pytest.mark.parametrize(
    ("image", "scores", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 4), np.float32), r"uint8 \(H, W, 3\), not torch.float32"),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((2, 4, 4), np.float32), r"uint8 \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 5), np.float32), r"\(4, 4\), not \(2, 4, 5\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4), np.float32), r"not \(0, 4, 4\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.int64), r"floats in \[0, 1\]"),
        (np.zeros((4, 4, 3), np.uint8), np.full((2, 4, 4), np.nan), r"floats in \[0, 1\]"),
    ],
)
def test_invalid_input_is_refused(crf, image, scores, message):
    with pytest.raises(ValueError, match=message):
        crf(image, scores)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"iterations": 0}, ValueError),
        ({"bilateral_weight": -1.0}, ValueError),
        ({"gaussian_sxy": 0.0}, pl.SettingError),
    ],
)
def test_invalid_settings_are_refused(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        pl.crf.TorchCrf(**wrong)


WITHOUT = """
import sys
sys.modules["pydensecrf"] = None  # what `import` reads as: not installed
import numpy as np
import torch
import pseudolabel as pl
from pseudolabel.stages.doctor import check_crf
from pseudolabel.stages.refiners import open_refiner
image, scores = np.zeros((8, 9, 3), np.uint8), np.full((1, 8, 9), 0.9, np.float32)
assert (pl.refine(image, scores, ["dog"], device="cpu").labels == 1).all()
assert (pl.crf.TorchCrf()(image, np.concatenate([scores, 1 - scores])).labels == 0).all()
assert check_crf().state == "ok", check_crf()
try:
    pl.refine(image, scores, ["dog"], device="cpu", engine="pydensecrf")
except pl.SettingError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_pydensecrf_all_but_its_engine_works():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "crf.engine pydensecrf: the package pydensecrf2 is not installed" in run.stdout
    assert "pip install 'pseudolabel[crf]'" in run.stdout


def test_naming_the_engine_without_its_package_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, scores = draw()
    with pytest.raises(pl.SettingError, match=r"pseudolabel\[crf\]"):
        pl.refine(image, scores, ["a", "b", "c"], engine="pydensecrf", device="cpu")
