"""Initial weights of a config or of `init`: chosen, fetched and looked at before the Runner is built."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from pseudolabel_train.errors import ConfigError, WeightsError
from pseudolabel_train.weights import PREFIX, check_file, check_initial, is_whole, load_from_weights, read_weights


def choose_initial(cfg: Config, place: str) -> None:
    """Let the backbone, or the whole segmenter where the weights are one's, start from `place`.

    Raises:
        ConfigError: if the config would not use them.
        WeightsError: if they cannot be read.
    """
    if cfg.get("load_from"):
        raise ConfigError(f"`init` {place}: the config has load_from='{cfg.load_from}', which would win; take one away")
    if not cfg.model.get("backbone"):
        raise ConfigError(f"`init` {place}: {cfg.model.type} has no backbone; set its own init_cfg in the config")
    init = {"type": "Pretrained", "checkpoint": f"{PREFIX}{place}"}
    for part in (cfg.model, cfg.model.backbone):
        part.pop("pretrained", None)
        part.pop("init_cfg", None)
    (cfg.model if is_whole(read_weights(place)) else cfg.model.backbone).init_cfg = init


def fetch_initial(cfg: Config) -> None:
    """Read all weights that the config starts from, or fetch them into the cache that MMEngine reads.

    Raises:
        WeightsError: if they are missing, cannot be fetched, or are no weights; the message names `init`.
    """
    for place in initial_places(cfg):
        if place.startswith(PREFIX):
            load_from_weights(place)
        elif "://" not in place:
            check_file(place)
        else:
            _fetch(place)


def check_initial_of(cfg: Config, model: nn.Module) -> None:
    """Make sure that the weights that our own prefix names are those of this model.

    Raises:
        WeightsError: if they are another's.
    """
    for part in (cfg.model, cfg.model.get("backbone") or {}):
        init = part.get("init_cfg")
        place = init.get("checkpoint", "") if isinstance(init, dict) else ""
        if place.startswith(PREFIX):
            check_initial(model, place.removeprefix(PREFIX))


def initial_places(cfg: Config) -> list[str]:
    """Every path and URL that weights are to come from before training, in the order of the config."""
    places = [] if cfg.get("resume") else [cfg.get("load_from")]
    return list(dict.fromkeys(str(place) for place in [*places, *_pretrained(cfg.model)] if place))


def _pretrained(part: Any) -> Iterator[str | None]:
    if isinstance(part, dict):
        if part.get("type") == "Pretrained":
            yield part.get("checkpoint")
        yield part.get("pretrained") if isinstance(part.get("pretrained"), str) else None
        for value in part.values():
            yield from _pretrained(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _pretrained(value)


def _fetch(place: str) -> None:
    """Addresses of MMEngine, such as torchvision://resnet50, are known to it alone."""
    name = Path(place).name
    try:
        CheckpointLoader.load_checkpoint(place, map_location="cpu")
    except (URLError, OSError, RuntimeError, ValueError, KeyError, EOFError, ImportError) as error:
        raise WeightsError(
            f"the initial weights '{place}' cannot be fetched ({type(error).__name__}: {error}); download them where "
            f"there is a network and say `init` PATH/{name}"
        ) from error
