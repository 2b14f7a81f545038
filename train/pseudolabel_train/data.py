"""A config's data, opened and looked at before the Runner is built, so that what is wrong with them ends there."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from pseudolabel.errors import SampleError, UserError
from pseudolabel.io.files import Location, read_bytes
from pseudolabel.io.images import decode_image
from pseudolabel.records import IGNORE
from pseudolabel_train.errors import ConfigError
from pseudolabel_train.image_list_dataset import ImageListDataset
from pseudolabel_train.loading import LoadShardSample, decode_mask
from pseudolabel_train.shard_dataset import ShardDataset

LOOKED_AT = 16  # first samples of each data set
MASK_LOADERS = ("LoadAnnotations", "LoadMask")
_MAX_PIXELS = np.iinfo(np.int64).max


def open_data(cfg: Config, loader: str) -> Any:
    """Build the data set of a loader, without its pipeline.

    Raises:
        ConfigError: if it cannot be built; the message names the setting.
        UserError: what our own data sets find.
    """
    data = cfg[loader].dataset
    _check_places(data, loader, sorted(set(re.findall(r"\{\{\$(\w+):", cfg.text))))
    try:
        return DATASETS.build(_without_pipeline(data))
    except UserError:
        raise
    except Exception as error:  # data sets of others may raise anything
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"{loader}.dataset ({data.get('type')}) cannot be opened: {said}") from error


def check_data(cfg: Config, loader: str, dataset: Any) -> None:
    """Look at a data set: every image file must be there, and the first ones, with their masks, must be readable.

    Raises:
        ConfigError: if an image or mask is missing, one of the first is damaged or its mask is none, or no mask holds a
            class.
    """
    for part, settings in _parts(dataset, cfg[loader].dataset):
        if isinstance(part, BaseSegDataset):
            infos = [part.get_data_info(number) for number in range(len(part))]
            with_masks = loads_masks(settings)
            if with_masks and infos and "seg_map_path" not in infos[0]:
                raise ConfigError(f"{loader}.dataset.data_prefix has no seg_map_path, where the masks are")
            _check_files(infos, "img_path", loader, part)
            if with_masks:
                _check_files(infos, "seg_map_path", loader, part)
            _look(infos, loader, with_masks, part)
        elif isinstance(part, ShardDataset):
            _check_classes((part.get_data_info(number) for number in range(len(part))), loader, part)


def loads_masks(settings: Any) -> bool:
    """Whether the pipeline of a data set's settings reads masks."""
    steps = settings.get("pipeline") or []
    return any(getattr(step["type"], "__name__", step["type"]) in MASK_LOADERS for step in steps)


def without_masks(cfg: Config, loader: str) -> None:
    """Take the reading of masks out of a data set's pipeline."""
    data = cfg[loader].dataset
    data.pipeline = [step for step in data.pipeline if not loads_masks({"pipeline": [step]})]


def lacking_masks(dataset: Any) -> list[str]:
    """Names of the images that have no mask's file."""
    infos = (dataset.get_data_info(number) for number in range(len(dataset)))
    return [Path(info["img_path"]).stem for info in infos if not os.path.exists(info["seg_map_path"])]


def _without_pipeline(data: Any) -> Any:
    """A copy of the settings, whose data sets load nothing when they are built."""
    if isinstance(data, dict):
        return {key: [] if key == "pipeline" else _without_pipeline(value) for key, value in data.items()}
    return [_without_pipeline(value) for value in data] if isinstance(data, list) else data


def _parts(dataset: Any, settings: Any) -> Iterator[tuple[Any, Any]]:
    """The data sets inside MMEngine's wrappers, such as `ConcatDataset`, with their settings."""
    if hasattr(dataset, "datasets"):
        for part, own in zip(dataset.datasets, settings["datasets"], strict=True):
            yield from _parts(part, own)
    elif hasattr(dataset, "dataset"):
        yield from _parts(dataset.dataset, settings["dataset"])
    else:
        yield dataset, settings


def _check_places(data: Any, loader: str, variables: Sequence[str]) -> None:
    """Name a missing list or folder before MMSegmentation stops on it without a word."""
    for part in [*(data.get("datasets") or []), *([data["dataset"]] if "dataset" in data else [])]:
        _check_places(part, loader, variables)
    root, name = Path(data.get("data_root") or ""), data.get("ann_file")
    setting = f"set the data set's folder with `cfg_options` {loader}.dataset.data_root=..."
    for variable in variables:
        setting += f", or with the environment variable {variable}, now '{os.environ.get(variable, '')}'"
    if name and not (root / name).is_file():
        raise ConfigError(f"no image list '{root / name}': {setting}")
    images = (data.get("data_prefix") or {}).get("img_path")
    if images is not None and "://" not in str(images) and not (root / images).is_dir():
        raise ConfigError(f"no folder of images '{root / images}': {setting}")


def _check_files(infos: list[dict[str, Any]], key: str, loader: str, dataset: BaseSegDataset) -> None:
    """Every local file must be there; a folder is listed once, which is quick on network disks as well."""
    paths = [info[key] for info in infos if "://" not in info[key]]
    there: dict[str, set[str]] = {}
    for folder in {os.path.dirname(path) for path in paths}:
        there[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
    missing = [path for path in paths if os.path.basename(path) not in there[os.path.dirname(path)]]
    if not missing:
        return
    what = "image" if key == "img_path" else "mask"
    hint = f"correct the list, {loader}.dataset.data_root or {loader}.dataset.data_prefix"
    if what == "image" and not isinstance(dataset, ImageListDataset):
        hint += "; lists of paths and other suffixes than .jpg are read by type='ImageListDataset' with a `vocabulary`"
    raise ConfigError(
        f"{loader}: {len(missing)} of {len(paths)} {what}s are missing, the first is '{missing[0]}'; {hint}"
    )


def _look(infos: list[dict[str, Any]], loader: str, with_masks: bool, dataset: BaseSegDataset) -> None:
    """Decode the first images, and their masks, or more of these until one holds a class."""
    for info in infos[:LOOKED_AT]:
        try:
            _decode_image(info)
        except SampleError as error:
            raise ConfigError(f"{loader}: {error}") from error
    if with_masks:
        _check_classes(iter(infos), loader, dataset)


def _check_classes(infos: Iterator[dict[str, Any]], loader: str, dataset: Any) -> None:
    """Masks that hold no class teach nothing, and score 100 % over background alone."""
    values: set[int] = set()
    looked, has_class = 0, False
    while not has_class or looked < LOOKED_AT:
        info = next(infos, None)
        if info is None:
            break
        try:
            found = _values(info, dataset)
        except SampleError as error:
            raise ConfigError(f"{loader}: {error}") from error
        values |= found
        looked += 1
        first = 0 if dataset.metainfo.get("reduce_zero_label") else 1
        has_class = has_class or any(first <= value < IGNORE for value in found)
    if has_class or len(dataset.metainfo["classes"]) < 2:
        return
    told = ", ".join(map(str, sorted(values)))
    raise ConfigError(
        f"{loader}: none of the {looked} masks holds a class, their labels are {told}: 255 is ignored, so where masks "
        "have one class it is 1, not 255"
    )


def _values(info: dict[str, Any], dataset: Any) -> set[int]:
    """The labels of a sample's mask, as the network numbers them."""
    if isinstance(dataset, ShardDataset):
        return set(np.unique(LoadShardSample()(info)["gt_seg_map"]).tolist())
    path, meta = info["seg_map_path"], dataset.metainfo
    # A stock data set may map labels of a larger vocabulary to its own; only then values may be any.
    count = len(meta["classes"]) if meta.get("label_map") is None else IGNORE
    mask = decode_mask(
        read_bytes(Location(path)),
        f"the mask '{path}'",
        _decode_image(info),
        count,
        bool(meta.get("reduce_zero_label")),
    )
    return set(np.unique(mask).tolist())


def _decode_image(info: dict[str, Any]) -> tuple[int, int]:
    """(H, W) of the image."""
    image, _ = decode_image(read_bytes(Location(info["img_path"])), f"'{info['img_path']}'", _MAX_PIXELS)
    return image.height, image.width
