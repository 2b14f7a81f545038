import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pseudolabel.shapes.dataset import write_shapes
from tests.e2e.commands import succeed

IMAGES = 16


@dataclass(frozen=True)
class Shapes:
    """A data set and what one process that nobody disturbed has made of it.

    Attributes:
        data: 16 images of Shapes.
        out: output folder of `generate`: 8 CAM shards and 8 mask shards.
        settings: arguments that every command on these data takes.
    """

    data: Path
    out: Path
    settings: tuple[str, ...]

    def at(self, out: Path, data: Path | None = None) -> list[str]:
        """Arguments of a run into another folder, and maybe on other data."""
        return [*self.settings, "--source.path", str(data or self.data), "--out", str(out)]

    def begun(self, out: Path, units: int, kind: str = "cams") -> Path:
        """A copy of the output as it was when so many units were done; masks come with all CAMs."""
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
    settings = ("--config", "shapes", "--work.unit", "2", "--work.workers", "1", "--crf.iterations", "2")
    made = Shapes(data, out, settings)
    succeed("generate", *made.at(out))
    return made


@pytest.fixture
def own_data(shapes: Shapes, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(shapes.data, tmp_path / "data"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as the commands have in processes of their own, so that the sums come out alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Cut a file in half."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return cut
