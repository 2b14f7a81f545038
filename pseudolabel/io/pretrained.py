"""Load frozen transformers models: CLIP, captioner, noun extractor."""

import os
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from safetensors import SafetensorError

from pseudolabel.errors import ModelError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.io.weight_file import explain_folder
from pseudolabel.runtime.bars import library_bars
from pseudolabel.runtime.precision import resolve_dtype

# Models in use, and the processor of each. They are frozen, so all users share them.
_models: WeakValueDictionary[tuple[Any, ...], torch.nn.Module] = WeakValueDictionary()
_processors: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()


def load_pretrained(
    folder: str,
    model_class: Any,
    processor_class: Any,
    device: torch.device,
    what: str,
    setting: str,
    hub: Hub = DEFAULT_HUB,
) -> tuple[Any, Any]:
    """Load a frozen model, from safetensors files only, and its processor.

    A model that is already in use is shared, not loaded again.

    Args:
        folder: hub id or folder of the checkpoint.
        model_class, processor_class: transformers classes with `from_pretrained`.
        device: the device of the model; its precision is the default of the device.
        what: the kind of checkpoint, such as `a CLIP`, for the message.
        setting: the setting that names it, such as `filter.clip`, for the message.
        hub: access to the hub.

    Returns:
        The model and the processor.

    Raises:
        ModelError: if either cannot be loaded.
    """
    dtype = resolve_dtype("auto", device)
    key = (folder, model_class, processor_class, device, dtype)
    model = _models.get(key)
    if model is not None:
        return model, _processors[model]
    access = hub.reach(folder, f"'{folder}' ({setting})", "config.json").options
    try:
        with library_bars():
            model = model_class.from_pretrained(folder, use_safetensors=True, dtype=dtype, **access)
            processor = processor_class.from_pretrained(folder, **access)
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # from reading files, parsing them, or mismatched weights
        if os.path.isdir(folder) and (others := explain_folder(folder)):
            raise ModelError(f"cannot load '{folder}' ({setting}):\n{others}") from error
        place = "a folder with" if os.path.isdir(folder) else "the name of, or a folder with,"
        raise ModelError(
            f"cannot load '{folder}' ({setting}); it must be {place} {what} checkpoint in safetensors with its "
            f"processor.\n{type(error).__name__}: {error}"
        ) from error
    model = model.to(device).eval().requires_grad_(False)
    _models[key], _processors[model] = model, processor
    return model, processor
