import numpy as np
import pytest
import torch

from pseudolabel.config import CrfConfig, FreeSegDiffConfig
from pseudolabel.crf.densecrf import refine
from pseudolabel.crf.failures import crf_failures
from pseudolabel.crf.regions import NamedRegions, refine_regions, try_regions
from pseudolabel.errors import SampleError, SettingError

CPU = torch.device("cpu")
NARROW = CrfConfig(iterations=1, bilateral_sxy=1e-7, engine="torch")  # too many vertices for a lattice
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
SCORES = np.full((1, 20, 30), 0.5, np.float32)


def fail(scores: np.ndarray, config: CrfConfig) -> None:
    with crf_failures(CPU):
        refine(IMAGE, scores, (1,), config)


def test_a_lattice_overflow_is_one_images_failure() -> None:
    with pytest.raises(SampleError, match=r"cannot take this image on cpu: .*`crf.engine` pydensecrf may") as caught:
        fail(SCORES, NARROW)
    assert caught.value.status == "crf"


def test_nan_scores_are_one_images_failure() -> None:
    with pytest.raises(SampleError, match=r"cannot take this image: scores must be in \[0, 1\]$") as caught:
        fail(SCORES * np.nan, CrfConfig())
    assert caught.value.status == "crf"


def test_an_invalid_setting_ends_the_run() -> None:
    with pytest.raises(SettingError, match="bilateral_sxy"):
        fail(SCORES, CrfConfig(bilateral_sxy=0.0))


def test_failed_regions_give_the_reason() -> None:
    regions = np.arange(600).reshape(20, 30) // 300
    named = NamedRegions(IMAGE, regions, [1, 2], FreeSegDiffConfig(crf=NARROW))
    assert "`freesegdiff.crf.engine` pydensecrf may" in str(try_regions(named))
    fine = NamedRegions(IMAGE, regions, [1, 2], FreeSegDiffConfig(crf=CrfConfig(iterations=1)))
    for found, expected in zip(try_regions(fine), refine_regions(fine), strict=True):
        np.testing.assert_array_equal(found, expected)
