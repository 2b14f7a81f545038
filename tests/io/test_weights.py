from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pseudolabel.io.weights import files_digest, weights_digest

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4, dtype=torch.bfloat16), "c": torch.tensor(3)}


def write(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


@pytest.fixture
def digest(tmp_path: Path) -> str:
    return weights_digest(str(write(tmp_path / "first/model.safetensors", WEIGHTS).parent))


def test_file_layout_does_not_matter(digest: str, tmp_path: Path) -> None:
    write(tmp_path / "second/unet/other-00002-of-00002.safetensors", {"a": WEIGHTS["a"]})
    write(tmp_path / "second/unet/other-00001-of-00002.safetensors", {name: WEIGHTS[name] for name in ("c", "b.bias")})
    assert weights_digest(str(tmp_path / "second"), "unet", "other") == digest


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.arange(6.0).view(3, 2)},
        {"a": torch.arange(6.0).view(2, 3).half()},
        {"a": torch.tensor([[0.0, 1, 2], [3, 4, 6]])},
        {"d": torch.zeros(1)},
    ],
)
def test_every_value_matters(digest: str, tmp_path: Path, changed: dict[str, torch.Tensor]) -> None:
    write(tmp_path / "second/model.safetensors", WEIGHTS | changed)
    assert weights_digest(str(tmp_path / "second")) != digest


def test_unused_parts_do_not_count(digest: str, tmp_path: Path) -> None:
    write(tmp_path / "second/model.safetensors", WEIGHTS | {"decoder.a": torch.zeros(1)})
    assert weights_digest(str(tmp_path / "second"), without=("decoder.",)) == digest


def test_a_variant(digest: str, tmp_path: Path) -> None:
    write(tmp_path / "second/model.safetensors", {"a": torch.zeros(1)})
    write(tmp_path / "second/model.fp16.safetensors", WEIGHTS)
    assert weights_digest(str(tmp_path / "second"), variant="fp16") == digest
    assert weights_digest(str(tmp_path / "second")) != digest
    assert weights_digest(str(tmp_path / "first"), variant="fp16") == digest  # a part may have none


def test_the_hub_s_cache(digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cache = tmp_path / "hub/models--someone--model"
    write(cache / f"snapshots/{'a' * 40}/unet/model.safetensors", WEIGHTS)
    write(cache / f"snapshots/{'b' * 40}/unet/model.safetensors", {"a": torch.zeros(1)})
    for name, commit in {"main": "a", "old": "b"}.items():
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / name).write_text(commit * 40)
    assert weights_digest("someone/model", "unet") == digest
    assert weights_digest("someone/model", "unet", revision="old") != digest
    # The main revision has no safetensors, and transformers has fetched a conversion of it.
    (cache / "refs/new").write_text("c" * 40)
    (cache / f"snapshots/{'c' * 40}/unet").mkdir(parents=True)
    (cache / f"snapshots/{'b' * 40}/unet/model.safetensors").unlink()
    assert weights_digest("someone/model", "unet", revision="new") == digest


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no model\.safetensors of '{tmp_path}'"):
        weights_digest(str(tmp_path))


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name, other in (("one", b"2"), ("two", b"2"), ("three", b"3")):
        (tmp_path / name / "vocab").mkdir(parents=True)
        (tmp_path / name / "meta.json").write_bytes(b"1")
        (tmp_path / name / "vocab/key").write_bytes(other)
    digests = [files_digest(tmp_path / name) for name in ("one", "two", "three")]
    assert digests[0] == digests[1] != digests[2]
