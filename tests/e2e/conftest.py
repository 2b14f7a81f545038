import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pseudolabel.io.json_text import digest
from pseudolabel.shapes.dataset import write_shapes
from tests.e2e.commands import call, expect

IMAGES = 16
SETTINGS = {"work": {"unit": 2, "workers": 1}, "crf": {"iterations": 2}}


@dataclass(frozen=True)
class Shapes:
    """A data set and the output of one uninterrupted process.

    Attributes:
        data: 16 images of Shapes.
        out: output folder of `generate`: 8 CAM shards and 8 mask shards.
    """

    data: Path
    out: Path

    def at(self, out: Path, data: Path | None = None) -> list[str]:
        """Options of any command for a run into another folder, and maybe on other data, as an experiment file."""
        settings = {**SETTINGS, "source": {"path": str(data or self.data)}, "out": str(out)}
        text = json.dumps(settings)
        file = self.data.parent / f"{digest(text)[:12]}.yaml"
        file.write_text(text)
        return ["--config", "shapes", "--config", str(file)]

    def begun(self, out: Path, units: int, kind: str = "cams") -> Path:
        """A copy of the output with only this many finished units; masks have all CAMs."""
        kinds = ("cams", "masks") if kind == "masks" else ("cams",)
        for copied in kinds:
            shutil.copytree(self.out / copied, out / copied)
        (out / kind / "index.json").unlink()
        for number in range(units, IMAGES // 2):
            for suffix in ("tar", "json"):
                (out / kind / f"{kind}-{number:06d}.{suffix}").unlink()
        return out / kind


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    data = tmp_path_factory.mktemp("shapes") / "data"
    out = tmp_path_factory.mktemp("reference")
    write_shapes(data, train=0, val=IMAGES, seed=90)
    made = Shapes(data, out)
    with one_torch_thread():
        expect(0, call("generate", *made.at(out)))
    return made


@pytest.fixture
def own_data(shapes: Shapes, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(shapes.data, tmp_path / "data"))


@pytest.fixture
def endless_data(own_data: Path) -> Path:
    """A copy of the data set on which no run ends by itself: an image of either of the last two units is a pipe.

    Nobody writes to it, so that its reader waits. However late a signal falls, it falls in a run that is at work.
    """
    for number in (IMAGES - 2, IMAGES):
        image = own_data / "JPEGImages" / f"val_{number:06d}.jpg"
        image.unlink()
        os.mkfifo(image)
    return own_data


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """As many threads here as the commands have in processes of their own, so that the sums come out alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Cut a file in half."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return cut
