"""What tests of several folders share."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from pseudolabel.config import CrfConfig, Experiment, ModelConfig, SourceConfig, WorkConfig
from pseudolabel.methods.registry import METHODS
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.dataset import write_shapes

REPOSITORY = Path(__file__).resolve().parents[1]


# The same examples in every run, and none is too slow: cores are shared with other work.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

# Comparisons with pydensecrf cannot run where the extra `crf` is not installed.
HAS_PYDENSECRF = find_spec("pydensecrf") is not None
COMPARED = ["crf/test_engines.py", "crf/test_regions.py", "crf/test_torch_engine.py", "crf/test_torch_crf.py"]
COMPARED += ["methods/test_freesegdiff.py", "methods/test_freesegdiff_predictor.py"]
collect_ignore = [] if HAS_PYDENSECRF else COMPARED
SLOW_FOLDERS = ("bench", "e2e", "train")  # as in the Makefile


@pytest.hookimpl(tryfirst=True)  # before the selection by markers
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark all tests of complete commands as slow, and let every process of the suite begin with slow tests.

    Tests that need Stable Diffusion's architecture come first in the first process, so that one process builds it.
    """
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if not HAS_PYDENSECRF and any(isinstance(own, str) and own == "pydensecrf" for own in parameters.values()):
            item.add_marker(pytest.mark.skip("pydensecrf is not installed"))
        if item.path.relative_to(REPOSITORY / "tests").parts[0] in SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)
    parts: list[list[pytest.Function]] = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    with_model = {item.path for item in items if "stable_diffusion" in item.fixturenames}
    parts[0] += [item for item in items if item.path in with_model]
    for path in sorted(slow - with_model):
        part = min(parts[1:] or parts, key=lambda part: sum(bool(item.get_closest_marker("slow")) for item in part))
        part += [item for item in items if item.path == path]
    others = iter([item for item in items if item.path not in slow | with_model])
    for part in parts:
        part += islice(others, max(0, len(items) // len(parts) - len(part)))
    items[:] = [*chain(*parts), *others]


@pytest.fixture(scope="session")
def voc_sample() -> Path:
    """The 40 train and 40 val images of VOC 2012 outside the repository."""
    path = Path(os.environ.get("PSEUDOLABEL_VOC_SAMPLE", REPOSITORY.parent / "shared" / "voc12_sample"))
    if not (path / "JPEGImages").is_dir():
        pytest.skip(f"no VOC sample in {path}; set PSEUDOLABEL_VOC_SAMPLE to a folder in VOC's layout")
    return path


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of the architecture of Stable Diffusion v1.5 with seeded random weights: 2 GB, taken away again."""
    from tests.plain.architectures import stable_diffusion_v15

    folder = stable_diffusion_v15(tmp_path_factory.mktemp("stable-diffusion"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def one_rank() -> Rank:
    return Rank(0, 1, 1, torch.device("cpu"))


@pytest.fixture
def methods_restored() -> Iterator[None]:
    """The registry as it was before the test."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture(scope="session")
def few_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of Shapes."""
    folder = tmp_path_factory.mktemp("shapes") / "data"
    write_shapes(folder, train=0, val=5, seed=77)
    return folder


@pytest.fixture
def experiment(few_shapes: Path, tmp_path: Path) -> Experiment:
    """Those images and the model that ships with the package."""
    return Experiment(
        out=str(tmp_path / "out"),
        vocabulary="shapes",
        source=SourceConfig(path=str(few_shapes), split="val"),
        model=ModelConfig(name="shapes"),
        work=WorkConfig(unit=2, workers=1, loaders=2),
        crf=CrfConfig(iterations=0),
    )
