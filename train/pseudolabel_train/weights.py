"""Read initial and trained weights, without executing code that a file may contain."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_torch_safe_globals
from torch import nn

from pseudolabel.io.weight_file import explain
from pseudolabel_train.errors import WeightsError
from pseudolabel_train.report import META

PREFIX = "weights:"
WRAPPERS = ("state_dict", "model_state_dict", "model")
LAST = "last_checkpoint"
_NUMBERED = re.compile(r"(?:iter|epoch)_(\d+)\.pth")
# PyTorch's messages about objects that are not tensors or plain containers, which it refuses to build.
_GLOBAL = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL|unrecognized function|but got) (\S*\w)")

# deeplab-pytorch's names for the parts of a residual network, such as `layer3.block1.reduce.conv.weight`.
_DEEPLAB_STEM = re.compile(r"layer1\.conv1\.(conv|bn)\.(.+)")
_DEEPLAB_BLOCK = re.compile(r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut|proj)\.(conv|bn)\.(.+)")
_DEEPLAB_PARTS = {"reduce": 1, "conv3x3": 2, "increase": 3}

StateDict = dict[str, torch.Tensor]


def read_weights(place: str) -> StateDict:
    """Read a state dict from a file or URL.

    Args:
        place: path or http(s) URL of a `.safetensors` file or of a file of `torch.save`; such a file may contain
            tensors, plain containers and MMEngine's logs, but no code. MMEngine's `last_checkpoint` is followed. URLs
            are downloaded once, into torch's own cache, and a hash in the file name is checked.

    Returns:
        Tensor by parameter name, on the CPU, in MMSegmentation's names where they were deeplab-pytorch's.

    Raises:
        WeightsError: if there is no such file, it cannot be downloaded, or it contains anything else.
    """
    return _unwrap(_read(place), place)


@dataclass(frozen=True)
class Trained:
    """A checkpoint of a complete segmenter.

    Attributes:
        place: its path or URL.
        weights: tensor by parameter name.
        training: the conditions of training that `ReportHook` saved; empty for checkpoints of other programs.
    """

    place: str
    weights: StateDict
    training: dict[str, Any]


def read_trained(place: str) -> Trained:
    """Read a checkpoint as `read_weights` does, with the conditions of its training.

    Raises:
        WeightsError: if it cannot be read.
    """
    content = _read(place)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    training = dict(meta.get(META, {})) if isinstance(meta, Mapping) else {}
    return Trained(place, _unwrap(content, place), training)


def load_trained(model: nn.Module, trained: Trained) -> None:
    """Load trained weights into a complete segmenter.

    Raises:
        WeightsError: if they belong to another model; the message names the parameters.
    """
    weights = trained.weights
    own = model.state_dict()
    errors = [f"lacks '{name}'" for name in own if name not in weights]
    errors += [f"has '{name}' besides" for name in weights if name not in own]
    errors += _wrong_shapes(own, weights)
    if errors:
        raise WeightsError(_explain(trained.place, errors, "the config builds another model"))
    model.load_state_dict(weights)


def check_initial(model: nn.Module, place: str) -> None:
    """Check that initial weights fit the model's backbone or the complete segmenter.

    MMEngine's `Pretrained` loads what fits and only logs the rest, so weights of another network would go unnoticed.

    Raises:
        WeightsError: if they cannot be read, lack a part of the backbone, or have it in other shapes.
    """
    weights = load_from_weights(place)
    backbone = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    if not is_segmenter(weights):
        weights = {f"backbone.{name}": value for name, value in weights.items()}
    counts = "num_batches_tracked"  # older files do not count batches, and nothing depends on it
    errors = [f"lacks '{name}'" for name in backbone if name not in weights and not name.endswith(counts)]
    errors += _wrong_shapes(backbone, weights)
    if errors:
        raise WeightsError(_explain(place, errors, "they are another backbone's"))


def is_segmenter(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether the weights are those of a complete segmenter rather than of a backbone."""
    return any(name.startswith("backbone.") for name in weights)


@CheckpointLoader.register_scheme(prefixes=PREFIX)
def load_from_weights(filename: str, map_location: str | None = None) -> StateDict:
    """MMEngine's `init_cfg=dict(type="Pretrained", checkpoint="weights:PLACE")`; see `read_weights`."""
    place = filename.removeprefix(PREFIX)
    if get_rank() > 0:
        barrier()  # the first rank downloads, the others read the cache
        return read_weights(place)
    try:
        return read_weights(place)
    finally:
        barrier()


def _read(place: str) -> object:
    if place.startswith(("http://", "https://")):
        return _download(place)
    path = check_file(place)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(f"'{path}' {_explain_pickle(path, error)}") from error
    except (EOFError, LookupError, struct.error) as error:  # raised for truncated files in the old format
        raise WeightsError(f"'{path}' is truncated or damaged; download or copy it again") from error
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"'{path}' cannot be read as weights: {error}; download or copy it again") from error


def check_file(place: str) -> Path:
    """The file of weights at a local path; only its beginning is read.

    MMEngine's `last_checkpoint`, a text file that names a checkpoint, is followed.

    Raises:
        WeightsError: if there is no such file, or it is something else, such as a web page; the message says what.
    """
    path = Path(place).expanduser()
    if path.name == LAST and path.is_file():
        path = follow(path)
    if not path.exists():
        raise WeightsError(f"no weights in '{place}': there is no such file")
    try:
        what = explain(path)
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read: {error.strerror}") from error
    if what:
        raise WeightsError(f"'{path}' {what}")
    return path


def follow(last: Path) -> Path:
    """The checkpoint that `last_checkpoint` names; if the folder was moved, the file of that name beside it.

    Raises:
        WeightsError: if neither exists; the message lists the checkpoints beside it.
    """
    named = Path(last.read_text(errors="replace").strip() or "nothing")
    beside = last.with_name(named.name)
    if found := next((path for path in (named, beside) if path.is_file()), None):
        return found
    others = ", ".join(path.name for path in checkpoints(last.parent)) or "none"
    raise WeightsError(f"'{last}' names '{named}', which does not exist; checkpoints beside it: {others}")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that MMEngine left in a work folder, newest first."""
    numbered = [(int(found[1]), path) for path in folder.glob("*.pth") if (found := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def _explain_pickle(path: Path, error: UnpicklingError) -> str:
    """Why PyTorch does not accept a file as weights, whether it is a pickle or not."""
    found = _GLOBAL.findall(str(error))
    try:
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(path) or found
    except (ValueError, RuntimeError, UnpicklingError):  # it only works for zip files
        pass
    if found:
        return (
            f"holds more than weights ({', '.join(sorted(found)[:3])}), and reading it would run code from it; save "
            "the state dict alone, best with safetensors.torch.save_file"
        )
    return "is damaged or no checkpoint (neither torch.save nor safetensors); download or copy it again"


def _download(url: str) -> object:
    name = url.rpartition("/")[2]
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except UnpicklingError as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / name
        what = (explain(cached) if cached.is_file() else None) or _explain_pickle(cached, error)
        raise WeightsError(f"'{url}', downloaded to '{cached}', {what}") from error
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"the initial weights '{url}' cannot be downloaded ({error}); download {name} on a machine with network "
            f"access and set `init` PATH/{name}"
        ) from error


def _unwrap(content: object, place: str) -> StateDict:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise WeightsError(f"'{place}' holds no state dict of tensors by parameter name")
    return {_rename(name.removeprefix("module.")): value for name, value in content.items()}


def _rename(name: str) -> str:
    """A parameter's name in MMSegmentation, given that name or deeplab-pytorch's."""
    if found := _DEEPLAB_STEM.fullmatch(name):
        return f"{found[1]}1.{found[2]}"
    if found := _DEEPLAB_BLOCK.fullmatch(name):
        layer, block, part, kind, rest = found.groups()
        place = f"layer{int(layer) - 1}.{int(block) - 1}"
        if part not in _DEEPLAB_PARTS:
            return f"{place}.downsample.{0 if kind == 'conv' else 1}.{rest}"
        return f"{place}.{kind}{_DEEPLAB_PARTS[part]}.{rest}"
    return name


def _wrong_shapes(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> list[str]:
    return [
        f"has '{name}' {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]


def _explain(place: str, errors: list[str], cause: str) -> str:
    more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
    return f"the weights '{place}' do not fit, {cause}: the file {'; '.join(errors[:3])}{more}"
