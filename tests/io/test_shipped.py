"""The models that ship with the package."""

from pathlib import Path
from typing import get_args

import pytest

from pseudolabel.experiment_file import open_experiment
from pseudolabel.io.shipped import NAMES, Part, resolve


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_name_has_every_part_and_an_experiment(name: str) -> None:
    for part in get_args(Part):
        assert Path(resolve(name, part)).is_dir()
    assert open_experiment(name).model.name == name


def test_another_name_is_left_as_it_is() -> None:
    assert resolve("stable-diffusion-v1-5/stable-diffusion-v1-5", "diffusion").endswith("/stable-diffusion-v1-5")
