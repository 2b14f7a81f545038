"""How a checkpoint's name is looked up, before any `from_pretrained` tries."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from pseudolabel.config import CaptionConfig, ModelConfig
from pseudolabel.diffusion.load import fingerprint, load_model
from pseudolabel.errors import ModelError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.clip import ClipScorer
from tests.exports.hub import Hub as Served
from tests.exports.hub import open_hub
from tests.plain.architectures import tiny, tiny_xl

NOWHERE = "http://127.0.0.1:9"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no hub."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    return tmp_path / "cache"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with open_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


def reach(name: object, revision: str = "main", hub: Hub = DEFAULT_HUB) -> Hub:
    return hub.reach(str(name), f"the model '{name}'", "config.json", revision)


def message(name: object, revision: str = "main", hub: Hub = DEFAULT_HUB) -> str:
    with pytest.raises(ModelError) as caught:
        reach(name, revision, hub)
    return str(caught.value)


def test_folders_are_not_looked_up_and_files_are_none(tmp_path: Path) -> None:
    assert reach(tmp_path) is DEFAULT_HUB
    (tmp_path / "model.safetensors").touch()
    assert message(tmp_path / "model.safetensors").endswith("it is a file; give the checkpoint's folder")


def test_the_hub_is_asked_once(served: Served) -> None:
    served.models = {"someone/model": ["main", "v2"]}
    assert reach("someone/model", "v2") is DEFAULT_HUB
    assert f"{served.url} has it, but no revision 'v3'" in message("someone/model", "v3")
    assert f"{served.url} has none of this name, or only for those" in message("someone/modle")


def test_without_network() -> None:
    assert message("someone/model") == (
        "cannot load the model 'someone/model': no such folder here, not in the local cache, and http://127.0.0.1:9 "
        "cannot be reached ([Errno 111] Connection refused).\nCheck the name, the network and, for a private "
        "checkpoint, the token (`hf auth login`); or give the folder of a downloaded checkpoint."
    )
    assert "and only local files are allowed" in message("someone/model", hub=Hub(local_files_only=True))
    assert "no checkpoint on the hub can have this name" in message("/no/such/folder")


@pytest.mark.parametrize("name", ["shape", "Shapes", "shpaes"])
def test_a_name_near_that_of_the_shipped_models(name: str, served: Served) -> None:
    assert "Did you mean 'shapes', which ships with this package?" in message(name)


@pytest.mark.parametrize("name", ["2-1-base", "2", "2-1"])
def test_checkpoints_that_have_left_the_hub_have_a_mirror(name: str, served: Served) -> None:
    assert f"give its mirror, sd2-community/stable-diffusion-{name}." in message(f"stabilityai/stable-diffusion-{name}")


def test_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in message("someone/model")


def test_every_model_s_name_is_looked_up() -> None:
    for setting, load in {
        "`model.name`": lambda name: load_model(ModelConfig(name=name), CPU),
        "`filter.clip`": lambda name: ClipScorer(name, CPU, "`filter.clip`"),
        "`captions.model`": lambda name: Captioner(CaptionConfig(model=name), CPU),
    }.items():
        with pytest.raises(ModelError, match=r"'someone/model'.*cannot be reached") as caught:
            load("someone/model")
        assert setting in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "side"), [(tiny, 128), (tiny_xl, 192)])
def test_a_model_in_the_cache_is_loaded_without_network(
    build: Callable[[Path], Path], side: int, cache: Path, tmp_path: Path, caplog
) -> None:
    folder = cache / "models--someone--model"
    shutil.copytree(build(tmp_path / "checkpoint"), folder / "snapshots" / ("0" * 40))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    config = ModelConfig(name="someone/model")
    with caplog.at_level(logging.WARNING, "pseudolabel"):
        model = load_model(config, CPU)
    assert model.image_size == side
    assert "is loaded from the local cache: http://127.0.0.1:9 cannot be reached" in caplog.text
    assert fingerprint(config) == fingerprint(ModelConfig(name=str(tmp_path / "checkpoint")))
