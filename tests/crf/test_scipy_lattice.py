"""The lattice of one core against that of tensors, which has its own plain reference."""

import numpy as np
import pytest
import torch

from pseudolabel.crf.lattice import build_lattice
from pseudolabel.crf.scipy_lattice import build_scipy_lattice


@pytest.mark.parametrize("count", [1, 3, 4, 37, 400])
@pytest.mark.parametrize("dimensions", [2, 5])
@pytest.mark.parametrize("columns", [1, 2, 4, 8])
def test_filtering_equals_the_lattice_of_tensors(count, dimensions, columns):
    rng = np.random.default_rng(count)
    points = torch.from_numpy(rng.normal(0, 1.0, (count, dimensions)).astype(np.float32))
    values = rng.random((count, columns), np.float32)
    expected = build_lattice([points]).normalised(2.5).filter(torch.from_numpy(values))
    found = build_scipy_lattice(points, 2.5).filter(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_kernel_of_no_weight_gives_zeros():
    points = torch.rand(30, 2)
    assert not build_scipy_lattice(points, 0.0).filter(np.ones((30, 2), np.float32)).any()
