"""Files in place of weights: each kind is recognized by content, and weights are accepted."""

import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pseudolabel.config import ModelConfig
from pseudolabel.diffusion.load import load_model
from pseudolabel.errors import ModelError
from pseudolabel.io.weight_file import explain, explain_folder

STATE = {"weight": torch.arange(3000.0), "bias": torch.ones(3)}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 178000000\n"


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; download or copy it again"),
        (LFS.encode(), r"is a Git LFS pointer, .*git lfs pull"),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Not found</body></html>",
            "is a web page .*download the file itself",
        ),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b'{"error":"Repository not found"}\n', 'is a text file that begins with \'{"error":"Repository not found"}\''),
        ("étoile ".encode() * 200, "is a text file that begins with 'étoile"),
    ],
)
def test_other_files_are_recognized_by_content(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert re.match(expected, explain(tmp_path / name) or "")


def test_weights_are_accepted_and_truncated_ones_refused(tmp_path):
    torch.save(STATE, tmp_path / "zip.pth")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert [explain(tmp_path / name) for name in ("zip.pth", "old.pth", "x.safetensors")] == [None] * 3
    for name in ("zip.pth", "x.safetensors"):
        data = (tmp_path / name).read_bytes()
        for length in (4, 60, 500, len(data) // 2, len(data) - 1):
            (tmp_path / f"cut-{name}").write_bytes(data[:length])
            if length > 4 or name.endswith("safetensors"):
                assert explain(tmp_path / f"cut-{name}") == "is cut off; download or copy it again", length
    assert explain(tmp_path) == "is a folder; give a file in it"
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "old.pth")
    shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path, "old.pth")
    assert re.match("is a zip archive.*unpack", explain(tmp_path / "packed.zip") or "")
    assert re.match("is a tar archive.*unpack", explain(tmp_path / "packed.tar") or "")


def test_a_models_folder_names_its_pointers(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(Path(str(resources.files("pseudolabel.shapes") / "models" / "shapes")), folder)
    assert explain_folder(folder) == ""
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_text(LFS)
    with pytest.raises(ModelError) as caught:
        load_model(ModelConfig(name=str(folder), dtype="float32"), torch.device("cpu"))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"cannot load the diffusion model '{folder}' (`model.name`):"
    assert lines[1:] == [f"'{weights}' {explain(weights)}"]
