"""Initial and trained weights: every kind of file that is taken, and every kind that is refused."""

import io
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.models import ResNet
from torch import nn

from pseudolabel_train.errors import WeightsError
from pseudolabel_train.weights import check_initial, is_segmenter, load_trained, read_trained, read_weights

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


class Segmenter(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))
        self.decode_head = nn.Conv2d(width, 4, 1)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_every_kind_of_checkpoint_gives_the_same_weights(tmp_path, wrapper):
    torch.save(STATE if wrapper is None else {wrapper: STATE, "meta": {"epoch": 1}}, tmp_path / "x.pth")
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    for found in (read_weights(str(tmp_path / "x.pth")), read_weights(str(tmp_path / "x.safetensors"))):
        assert found.keys() == STATE.keys()
        assert all(torch.equal(found[key], value) for key, value in STATE.items())


def test_wrappers_of_parallel_training_are_removed(tmp_path):
    torch.save({"module.conv.bias": STATE["conv.bias"]}, tmp_path / "x.pth")
    assert list(read_weights(str(tmp_path / "x.pth"))) == ["conv.bias"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    torch.save({"state_dict": STATE, "extra": Trap()}, tmp_path / "x.pth")
    torch.save({"state_dict": STATE, "extra": Trap()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("x.pth", "old.pth"):
        expected = rf"{name}' holds more than weights \(posix\.mkdir\), and reading it would run code.*safetensors"
        with pytest.raises(WeightsError, match=expected):
            read_weights(str(tmp_path / name))
    assert not trap.exists()
    pickle.loads((lambda buffer: (pickle.dump(Trap(), buffer), buffer.getvalue())[1])(io.BytesIO()))
    assert trap.exists()  # so the trap would have closed


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut", bytes(range(256)), pickle.dumps({"a": 1})])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_other_files_are_named_and_not_called_unsafe(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(name)) as caught:
        read_weights(str(tmp_path / name))
    assert "code" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.99])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_checkpoint_is_named(tmp_path, is_zip, share):
    torch.save({"weight": torch.ones(3000)}, tmp_path / "x.pth", _use_new_zipfile_serialization=is_zip)
    data = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"x\.pth' .*download or copy it again"):
        read_weights(str(tmp_path / "x.pth"))


def test_last_checkpoint_is_followed_in_a_moved_folder(tmp_path):
    torch.save(STATE, tmp_path / "iter_9.pth")
    for named in (tmp_path / "iter_9.pth", "/elsewhere/work/iter_9.pth", "iter_9.pth"):
        (tmp_path / "last_checkpoint").write_text(f"{named}\n")
        trained = read_trained(str(tmp_path / "last_checkpoint"))
        assert torch.equal(trained.weights["conv.weight"], STATE["conv.weight"])
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_30.pth")
    with pytest.raises(WeightsError, match=r"names '/elsewhere/iter_30\.pth', which does not exist.*iter_9\.pth"):
        read_trained(str(tmp_path / "last_checkpoint"))


def test_a_missing_file_and_one_without_a_state_dict(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(str(tmp_path / "none.pth"))
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_weights(str(tmp_path / "x.pth"))


def test_weights_that_cannot_be_downloaded_get_a_hint(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"`init` PATH/resnet101-63fe2227\.pth"):
        read_weights("http://127.0.0.1:9/resnet101-63fe2227.pth")


def test_mmengine_reads_them_as_initial_weights(tmp_path):
    torch.manual_seed(0)
    source, target = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "x.safetensors")
    load_checkpoint(target, f"weights:{tmp_path / 'x.safetensors'}", strict=True)
    assert torch.equal(source.weight, target.weight)
    assert (
        CheckpointLoader.load_checkpoint(f"weights:{tmp_path / 'x.safetensors'}").keys() == source.state_dict().keys()
    )


def deeplab_names(model: ResNet) -> dict[str, torch.Tensor]:
    """The state of an MMSegmentation ResNet under the names that deeplab-pytorch gives to the same parts."""
    parts = {"1": "reduce", "2": "conv3x3", "3": "increase"}
    state = {}
    for name, value in model.state_dict().items():
        if found := re.fullmatch(r"(conv|bn)1\.(.+)", name):
            state[f"layer1.conv1.{found[1]}.{found[2]}"] = value
        elif found := re.fullmatch(r"layer(\d)\.(\d+)\.downsample\.([01])\.(.+)", name):
            kind = ("conv", "bn")[int(found[3])]
            state[f"layer{int(found[1]) + 1}.block{int(found[2]) + 1}.shortcut.{kind}.{found[4]}"] = value
        else:
            found = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(.+)", name)
            place = f"layer{int(found[1]) + 1}.block{int(found[2]) + 1}"
            state[f"{place}.{parts[found[4]]}.{found[3]}.{found[5]}"] = value
    return state


def test_deeplab_pytorch_names_become_those_of_a_resnet(tmp_path):
    torch.manual_seed(0)
    model = ResNet(depth=50, base_channels=4, stem_channels=4)
    torch.save(deeplab_names(model), tmp_path / "coco.pth")
    found = read_weights(str(tmp_path / "coco.pth"))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_trained_weights_must_be_the_complete_model(tmp_path):
    torch.manual_seed(0)
    model, trained = Segmenter(), Segmenter()
    path = str(tmp_path / "x.pth")
    torch.save({"state_dict": trained.state_dict()}, path)
    load_trained(model, read_trained(path))
    assert torch.equal(model.decode_head.weight, trained.decode_head.weight)
    torch.save({"state_dict": trained.backbone.state_dict()}, path)
    with pytest.raises(WeightsError, match=r"lacks 'backbone\.0\.weight'.* and \d+ more"):
        load_trained(model, read_trained(path))
    torch.save(Segmenter(width=5).state_dict(), path)
    with pytest.raises(WeightsError, match=r"\(5, 3, 1, 1\) instead of \(3, 3, 1, 1\)"):
        load_trained(model, read_trained(path))


def test_initial_weights_hold_a_backbone_or_a_segmenter(tmp_path):
    path = str(tmp_path / "x.pth")
    backbone = {name: value for name, value in Segmenter().backbone.state_dict().items() if "num_batches" not in name}
    torch.save({**backbone, "fc.weight": torch.ones(3)}, path)
    check_initial(Segmenter(), path)
    assert not is_segmenter(read_weights(path))
    torch.save(Segmenter().state_dict(), path)
    check_initial(Segmenter(), path)
    assert is_segmenter(read_weights(path))


def test_another_backbone_as_initial_weights_is_refused(tmp_path):
    path = str(tmp_path / "x.pth")
    torch.save({"layer9.weight": torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"another backbone's: the file lacks 'backbone\.0\.weight'"):
        check_initial(Segmenter(), path)


def test_a_checkpoint_in_the_old_format_may_be_cut_off_anywhere(tmp_path):
    torch.save({"weight": torch.ones(30)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pth").read_bytes()
    for length in range(1, len(data)):
        (tmp_path / "x.pth").write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"x\.pth' "):
            read_weights(str(tmp_path / "x.pth"))
