from pathlib import Path

import pytest
import torch

from pseudolabel.config import CrfConfig, Experiment, ModelConfig, SourceConfig, WorkConfig
from pseudolabel.runtime.rank import Rank
from pseudolabel.shapes.dataset import write_shapes


@pytest.fixture(scope="session")
def one_rank() -> Rank:
    return Rank(0, 1, 1, torch.device("cpu"))


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
